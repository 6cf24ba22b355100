"""A kernel in the place of a probe's or a fusion's own head."""

from __future__ import annotations

import numpy as np
import pytest

from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Silent, Task
from llmembed.errors import ConfigError
from llmembed.experiment import Experiment
from llmembed.methods import load
from llmembed.pipelines.methods import Assembler

TOPIC = Task(name="topic", classes=("grain", "trade", "ship"))
WORDS = ("wheat corn harvest", "tariffs exports deficit", "vessel cargo harbour")


def examples(count: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, count)
    texts = [f"{' '.join(rng.choice(WORDS[c].split(), 2))} {n}" for n, c in enumerate(topic)]
    return Examples(texts=texts, labels={"topic": topic})


def assembled(**methods) -> Assembler:
    return Assembler(Experiment.model_validate({"methods": methods}))


HEADS = {
    "probe": {"kind": "probe", "view": "encoder mean:2", "head": "kernel"},
    "joined": {"kind": "fused", "fusion": "concat_b_r", "head": {"kind": "kernel"}},
    "averaged": {"kind": "fused", "fusion": "avg", "lexical": 8, "head": {"kind": "kernel"}},
}


@pytest.mark.parametrize("name", HEADS)
def test_it_learns_is_saved_and_answers_the_same(name, tmp_path):
    method = assembled(**{name: HEADS[name]}).method(name)
    with LocalRuntime(tmp_path / "files") as runtime:
        train, valid, test = examples(90, 0), examples(30, 1), examples(40, 2)
        classifier = method.fit([TOPIC], train, valid, runtime, Silent())
        answers = classifier.predict(test.texts, runtime)["topic"]
        assert (answers.labels == test.labels["topic"]).mean() > 0.9
        classifier.save(tmp_path / "saved")
        again = load(tmp_path / "saved").predict(test.texts, runtime)["topic"]
        np.testing.assert_array_equal(answers.scores, again.scores)
        width = {"probe": 384, "joined": 7 * 384, "averaged": 384}[name]
        assert classifier.features(test.texts[:2]).shape == (2, width)
        if name != "averaged":
            assert classifier.joint.terms is None


def test_a_fusion_that_is_trained_wants_a_head_that_is():
    fused = {"kind": "fused", "fusion": "co_avg", "head": {"kind": "kernel"}}
    with pytest.raises(ConfigError, match=r"methods.fused.*'co_avg' is trained with its head"):
        assembled(fused=fused).method("fused")
