"""A model of its own for each task: what the contract promises of many as one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llmembed.contract import Classifier, Silent, Usage
from llmembed.methods import load
from llmembed.methods.finetuned.separate import Separate
from llmembed.methods.frozen.lexical import Lexical

sys.path.append(str(Path(__file__).parents[2]))
from test_contract import LONG, TOPIC, make_examples


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    from llmembed.cluster import LocalRuntime

    runtime = LocalRuntime(tmp_path_factory.mktemp("files"))
    train, valid = make_examples(240, 0), make_examples(60, 1)
    return Separate(each=Lexical()).fit([TOPIC, LONG], train, valid, runtime, Silent())


def test_each_task_is_answered_by_its_own(fitted):
    test = make_examples(60, 2)
    assert isinstance(fitted, Classifier)
    found = fitted.predict(test.texts)
    assert list(found) == ["topic", "long"]
    for part, task in zip(fitted.parts, (TOPIC, LONG), strict=True):
        assert part.tasks == (task,)
        alone = part.predict(test.texts)[task.name].scores
        np.testing.assert_array_equal(found[task.name].scores, alone)
    assert fitted.parameters_trained == sum(part.parameters_trained for part in fitted.parts)
    assert fitted.fit_usage == sum((part.fit_usage for part in fitted.parts), Usage())


def test_saved_it_answers_the_same(fitted, tmp_path: Path):
    fitted.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert (loaded.method, loaded.tasks) == ("separate", fitted.tasks)
    texts = make_examples(12, 2).texts
    for task in ("topic", "long"):
        before, after = (c.predict(texts)[task].labels for c in (fitted, loaded))
        np.testing.assert_array_equal(before, after)
