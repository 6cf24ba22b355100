"""A view called ``own`` is read as the model's own files say, and what they say is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_bert import save_tiny_bert

from llmembed.backbones import parse_reads
from llmembed.errors import ConfigError
from llmembed.experiment import Experiment
from llmembed.pipelines.methods import Assembler


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder: the first token, with a prompt for queries."""
    made = save_tiny_bert(tmp_path_factory.mktemp("models") / "sentences")
    types = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    steps = [{"path": p, "type": f"sentence_transformers.models.{t}"} for p, t in types.items()]
    (made / "1_Pooling").mkdir()
    for name, told in (
        ("modules.json", steps),
        ("1_Pooling/config.json", {"pooling_mode": "cls"}),
        ("config_sentence_transformers.json", {"prompts": {"query": "the oil "}}),
    ):
        (made / name).write_text(json.dumps(told), encoding="utf-8")
    return made


def experiment(folder: Path, **backbone: object) -> Experiment:
    return Experiment.model_validate(
        {
            "backbones": {"encoder": {"model": str(folder), "dtype": "float32", **backbone}},
            "views": {},
            "methods": {
                "probe": {"kind": "probe"},
                "set": {"kind": "probe", "view": "encoder mean:2"},
            },
            "runtime": {"local": True},
        }
    )


def test_a_probe_reads_the_models_own_pooling(folder, capsys):
    assembler = Assembler(experiment(folder, prompt="query"), drop_unreadable=True)
    assert assembler.view("encoder own", "here").reads == parse_reads("cls:1")
    [spec] = assembler.backbones()
    assert spec.reads == parse_reads("mean:2 cls:1")  # one pass serves both methods
    assert (spec.template, spec.normalise) == ("the oil {text}", True)
    said = " ".join(capsys.readouterr().out.split())
    assert "sentences is read by what its own files say" in said
    assert said.count("its pooling cls:1 is read") == 1


def test_settings_go_first(folder):
    [spec] = Assembler(experiment(folder, normalise=False, max_tokens=16)).backbones()
    assert (spec.template, spec.normalise, spec.max_tokens) == (None, False, 16)
    with pytest.raises(ConfigError, match="no prompt 'passage', it has query, none"):
        Assembler(experiment(folder, prompt="passage")).backbones()
