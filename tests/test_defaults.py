"""One set of defaults: what YAML leaves unsaid is what Python leaves unsaid."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from llmembed.experiment import Experiment
from llmembed.methods import METHODS
from llmembed.pipelines.methods import Assembler

SAID: dict[str, dict[str, Any]] = {"decoder": {"model": "folder"}, "ensemble": {"of": ["lexical"]}}
"""What can't be left unsaid."""
KINDS = [kind for kind, settings in METHODS.items() if settings.offered]


@pytest.mark.parametrize("kind", KINDS)
def test_yaml_and_python_leave_the_same_unsaid(kind, tiny_bert, tmp_path):
    experiment = Experiment.model_validate(
        {
            "data": {"source": ["texts.csv"]},
            "backbones": {"encoder": {"model": str(tiny_bert)}},
            "views": {"L": "encoder mean:1-2", "B": "encoder pooler"},
            "generators": {"llm": {"model": "a", "base_url": "http://127.0.0.1:9/v1"}},
            "runtime": {"files": str(tmp_path)},
            "methods": {"lexical": {"kind": "lexical"}, kind: {"kind": kind, **SAID.get(kind, {})}},
        }
    )
    made: Any = Assembler(experiment).method(kind)
    # Python is told what has no default there, and where nearest texts and labels are found.
    needed = {
        field.name: getattr(made, field.name)
        for field in dataclasses.fields(made)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    for name in {"view", "name"} & {field.name for field in dataclasses.fields(made)}:
        needed[name] = getattr(made, name)
    assert made == type(made)(**needed)
