"""The application on a real Ray Serve: placement, metrics of all replicas, swaps and kills."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_program import Load, Serving, ask, examples, fitted, registered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
TEXT = {"inputs": "oil price rose"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving") / "files"


@pytest.fixture(scope="module")
def probe(files: Path, tiny_bert: Path) -> Any:
    from llmembed.backbones import View, parse_reads, resolve
    from llmembed.methods.frozen.probe import Probe

    spec = resolve(str(tiny_bert), reads="mean:1", max_tokens=24, dtype="float32")
    return fitted(Probe(view=View(backbone=spec, reads=parse_reads("mean:1"))), files)


@pytest.fixture(scope="module")
def lexical(files: Path) -> Any:
    from llmembed.methods.frozen.lexical import Lexical

    return fitted(Lexical(), files)


@pytest.fixture(scope="module")
def serving(files: Path, probe: Any, lexical: Any) -> Iterator[Serving]:
    """Two models, two replicas of everything, the backbone apart, a challenger in the shadow."""
    registered(probe, "news", files, score=0.9, at=files / "probe")
    registered(lexical, "news", files, score=0.8, at=files / "lexical")  # its challenger
    registered(lexical, "plain", files, score=0.8, at=files / "plain")
    words = ["news", "plain", "placement=apart", "challenger.mode=shadow", "refresh_seconds=0.5"]
    for group in ("ingress", "backbones"):
        words += [f"{group}.min_replicas=2", f"{group}.max_replicas=2", f"{group}.cpus=0.1"]
    serving = Serving.start(files, words)
    yield serving
    serving.kill()


def sample(serving: Serving, name: str) -> dict[str, float]:
    """Labels -> value of one metric."""
    text = ask(f"{serving.url}/metrics")[1]
    found = re.findall(rf"^{name}(\{{.*?\}})? (\S+)$", text, re.M)
    return {labels: float(value) for labels, value in found}


def test_answers_are_the_classifiers_own(serving: Serving, probe: Any) -> None:
    texts = list(examples(12, seed=5).texts)
    status, found, headers = ask(f"{serving.url}/predict", {"inputs": texts})
    assert status == 200 and headers["x-model"] == "news/1"
    wanted = probe.predict(texts)["topic"].scores
    for row, labels in enumerate(found):
        given = {one["label"]: one["score"] for one in labels}
        assert [given[name] for name in probe.tasks[0].classes] == pytest.approx(
            wanted[row].tolist(), abs=1e-4
        )


def test_models_by_name_and_version(serving: Serving) -> None:
    info = ask(f"{serving.url}/info")[1]
    assert [model["name"] for model in info["models"]] == ["news", "plain"]
    assert set(info["models"][0]["backbones"].values()) == {"apart"}
    for model, wanted in (
        ("plain", "plain/1"),
        ("news/2", "news/2"),
        ("news@challenger", "news/2"),
    ):
        status, _, headers = ask(f"{serving.url}/predict", {**TEXT, "model": model})
        assert (status, headers["x-model"]) == (200, wanted)
    assert ask(f"{serving.url}/predict", {**TEXT, "model": "news/99"})[0] == 404
    assert ask(f"{serving.url}/predict", {**TEXT, "model": "other"})[0] == 404


def test_the_challenger_sees_copies_and_every_replica_is_counted(serving: Serving) -> None:
    for _ in range(20):
        assert ask(f"{serving.url}/predict", TEXT)[0] == 200
    end = time.monotonic() + 20
    while sum(sample(serving, "llmembed_shadow_total").values()) < 20:
        assert time.monotonic() < end, sample(serving, "llmembed_shadow_total")
        time.sleep(0.2)

    def replicas() -> set[str]:
        asked = sample(serving, "llmembed_requests_total")
        return {re.findall(r'replica="(.*?)"', labels)[0] for labels in asked}

    while len(replicas()) < 2:  # HAProxy may keep to one while the other is busy starting
        assert time.monotonic() < end + 60
        assert ask(f"{serving.url}/predict", TEXT)[0] == 200
    assert sum(sample(serving, "llmembed_batch_tokens_count").values()) >= 20


def test_a_killed_backbone_loses_no_request(serving: Serving) -> None:
    before = serving.replicas("backbone")
    assert len(before) == 2
    with Load(f"{serving.url}/predict", TEXT) as load:
        load.wait_for(20)
        os.kill(before[0], signal.SIGKILL)
        load.wait_for(100)
    assert load.refused == []
    end = time.monotonic() + 60
    while len(serving.replicas("backbone")) < 2:
        assert time.monotonic() < end, "it was not replaced"
        time.sleep(0.5)


def test_a_killed_ingress_loses_at_most_what_it_held(serving: Serving) -> None:
    before = serving.replicas("llmembed")
    assert len(before) == 2
    with Load(f"{serving.url}/predict", TEXT) as load:
        load.wait_for(20)
        os.kill(before[0], signal.SIGKILL)
        load.wait_for(100)
    assert len(load.refused) <= load.clients, load.refused


def test_a_new_champion_takes_over_without_a_failed_request(
    serving: Serving, files: Path, lexical: Any
) -> None:
    with Load(f"{serving.url}/predict", TEXT) as load:
        load.wait_for(20)
        new = registered(lexical, "news", files, score=0.95, at=files / "better")
        assert new.alias == "champion"
        end = time.monotonic() + 60
        while {model for _, model in load.answers[-20:]} != {f"news/{new.version}"}:
            assert time.monotonic() < end, load.answers[-1]
            time.sleep(0.2)
    assert load.refused == []
    assert {model for _, model in load.answers} == {"news/1", f"news/{new.version}"}
    assert sum(sample(serving, "llmembed_swaps_total").values()) >= 1


def test_ctrl_c_stops_everything(serving: Serving) -> None:
    output = serving.stop()
    assert serving.process.returncode == 0, output
    assert "news" in output and "Traceback" not in output and "WARNING" not in output
    with pytest.raises(OSError):
        ask(f"{serving.url}/health", timeout=2)
