"""``serve deploy`` of a config file on a running cluster, and of a changed one under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray_head import BIN, ROOT, Cluster, free_ports, running_head
from serving_program import Load, ask, fitted, registered

from serve.starting import FAST, LOCAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_the_ready_config_is_one_of_ray_serve() -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.settings import load_settings

    read = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    (application,) = ServeDeploySchema.model_validate(read).applications
    assert application.import_path == "serve.app:app"
    assert load_settings(application.args).models == ["reviews"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_head(tmp_path_factory.mktemp("files"), **FAST, **LOCAL) as found:
        yield found


def test_a_new_config_under_load_fails_no_request(cluster: Cluster, tmp_path: Path) -> None:
    from llmembed.methods.frozen.lexical import Lexical

    registered(fitted(Lexical(), tmp_path), "news", cluster.files, score=0.9, at=tmp_path / "a")
    (port,) = free_ports(1)
    config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": int(port)}
    config["applications"][0]["args"] = {
        "models": ["news"],
        "files": str(cluster.files),
        "ingress": {"min_replicas": 2, "max_replicas": 2, "cpus": 0.1},
    }
    url = f"http://127.0.0.1:{port}"
    path = tmp_path / "config.yaml"

    def deploy(texts: int) -> None:
        config["applications"][0]["args"]["limits"] = {"texts": texts}
        path.write_text(yaml.safe_dump(config))
        ran = cluster.run(str(BIN / "serve"), "deploy", "-a", cluster.address, str(path))
        assert ran.returncode == 0, ran.stdout

    def wait_for(texts: int) -> None:
        end = time.monotonic() + 120
        found = None
        for _ in range(3):  # of both replicas, as chance has it
            while found != texts:
                assert time.monotonic() < end, found
                time.sleep(0.5)
                try:
                    found = ask(f"{url}/info", timeout=5)[1]["max_client_batch_size"]
                except (OSError, TypeError, KeyError):
                    continue

    deploy(8)
    wait_for(8)
    with Load(f"{url}/predict", {"inputs": "oil price rose"}) as load:
        load.wait_for(20)
        deploy(16)
        wait_for(16)
        load.wait_for(100)
    assert load.refused == []
