"""What a folder may not do to whoever loads it: take room without end, name other places, speak to
a terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from llmembed.backbones import parse_reads
from llmembed.backbones.weights import check_plain, local_folder
from llmembed.contract import Task
from llmembed.errors import ConfigError, ModelError
from llmembed.generation.adapters import with_adapters
from llmembed.generation.building import build_generator
from llmembed.methods import load
from llmembed.methods.asked import InvalidAnswers
from llmembed.methods.frozen.logistic import from_arrays
from llmembed.methods.prompted.voting import Rounds
from llmembed.permissions import Allowed, loading
from llmembed.tracking.registry import _check_host

SAVED = Path(__file__).parent / "saved_before"


def test_adapters_beside_a_model_are_refused(tiny_bert, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    check_plain(folder)
    told = {"peft_type": "XLORA", "adapters": {"0": "somebody/adapter"}}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="adapters beside the model's weights"):
        check_plain(folder)


def test_adapters_of_other_kinds_are_not_put_on(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "XLORA"}))
    with pytest.raises(ModelError, match="not LoRA's"):
        with_adapters(None, str(tmp_path), None)


def test_a_folder_of_steps_stays_within_itself(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "config.json").write_text("{}")
    steps = [{"path": "..", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "model" / "modules.json").write_text(json.dumps(steps))
    with pytest.raises(ModelError, match="outside"):
        local_folder(str(tmp_path / "model"))


def test_what_takes_room_without_end_is_refused():
    with pytest.raises(ConfigError, match="no model has 300000000 blocks"):
        parse_reads("mean:1-300000000")
    with pytest.raises(ConfigError, match="at most 100"):
        InvalidAnswers(policy="retry", retries=10**9)
    with pytest.raises(ConfigError, match="at most 100"):
        Rounds(number=10**9)
    task = Task(name="topic", classes=("a", "b"))
    wide = {"topic.weights": np.zeros((0, 3_000_000)), "topic.bias": np.zeros(3_000_000)}
    with pytest.raises(ModelError, match="don't fit its classes"):
        from_arrays([task], wide)


def test_a_part_that_asks_is_refused_since_budgets_would_not_reach_it(tmp_path):
    folder = tmp_path / "separate"
    shutil.copytree(SAVED / "separate", folder)
    shutil.rmtree(folder / "part-0")
    shutil.copytree(SAVED / "prompt", folder / "part-0")
    with pytest.raises(ModelError, match="a part asks a language model"):
        load(folder, Allowed(endpoints=("http://127.0.0.1:9/v1=none",)))


def test_how_hard_an_endpoint_is_asked_has_a_bound():
    told = {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    told |= {"api_key_env": None, "retries": 10**9}
    with loading(Allowed(endpoints=("http://127.0.0.1:9/v1=none",))):
        made = [build_generator({**told, "concurrency": many}).to_json() for many in (8, 10**6)]
    assert [each["concurrency"] for each in made] == [8, 64]
    assert {each["retries"] for each in made} == {20}


@pytest.mark.parametrize(
    ("location", "reached"),
    [
        ("s3://bucket/x", True),
        ("/runs/x", True),
        ("mlflow-artifacts://registry.example/x", True),
        ("https://registry.example/x", True),
        ("http://registry.example/x", False),
        ("https://registry.example:9999/x", False),
        ("r2://b@elsewhere.example/x", False),
        ("wasbs://c@elsewhere.blob.example/x", False),
    ],
)
def test_a_version_chooses_no_host(location, reached):
    if reached:
        _check_host(location, "https://registry.example", "models:/a/1")
    else:
        with pytest.raises(ModelError, match="a host other than the registry's"):
            _check_host(location, "https://registry.example", "models:/a/1")


def test_a_folders_name_says_nothing_to_a_terminal(capsys, tmp_path):
    from llmembed.cli import main

    folder = tmp_path / "model"
    shutil.copytree(SAVED / "probe", folder)
    told = json.loads((folder / "classifier.json").read_text())
    for view in told["settings"]["views"].values():
        view["backbone"]["location"] = "\x1b]0;mine\x07\x1b[2J"
    (folder / "classifier.json").write_text(json.dumps(told))
    (tmp_path / "a.csv").write_text("text\noil\n")
    words = ["--model", str(folder), "--data", str(tmp_path / "a.csv"), "--local"]
    out = str(tmp_path / "out.csv")
    assert main(["predict", *words, "--output", out, "--files", str(tmp_path / "files")]) != 0
    assert "\x1b" not in capsys.readouterr().err
