"""What several rooms' tests share: a tiny model built here, and one real local Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is loaded: its idle threads must not spin on cores that Ray's workers need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Ray's workers give way to other processes otherwise; what these tests wait for are they.
os.environ.setdefault("RAY_worker_niceness", "0")

LONGEST = (
    "test_jobs",
    "test_runtimes",
    "test_sweeps",
    "test_comparing",
    "test_train",
    "test_predicting_stopped",
    "test_predicting",
    "test_predicting_by_asking",
    "test_encoder",
    "test_local",
    "test_embed_processes",
    "test_cli",
    "test_contract",
    "test_prompting",
)
"""Files that take longest. Shared out among processes they come first, so that all end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        ranks = {name: rank for rank, name in enumerate(LONGEST)}
        items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved tiny BERT."""
    from tiny_bert import save_tiny_bert

    return save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_spec(tiny_bert: Path) -> Any:
    """The tiny BERT read at three places, float32, at most 24 tokens."""
    from llmembed.backbones import resolve

    return resolve(str(tiny_bert), reads="mean:1-2 cls:1", max_tokens=24, dtype="float32")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without a run, to be copied: its migrations take seconds."""
    from llmembed.tracking import Tracking

    folder = tmp_path_factory.mktemp("empty")
    Tracking(f"sqlite:///{folder / 'mlflow.db'}", files=folder).client.search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A boto3 client of a real server of that protocol on the loopback address, which the
    environment names; its buckets are gone with the module."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    from llmembed.texts.files import _remote

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        _remote.cache_clear()
        yield boto3.client("s3")
    server.stop()
    _remote.cache_clear()


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A real Ray on this machine for the whole run; runtimes made meanwhile use it."""
    from llmembed.cluster import connect, disconnect

    # Workers import what tests send them.
    here = Path(__file__).parent
    folders = [here, *(folder for folder in here.iterdir() if folder.is_dir())]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, folders), *([before] if before else [])])
    session = connect("local")
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    yield
    disconnect(session)
