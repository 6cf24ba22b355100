"""The methods that ask a language model: what the contract promises of them too."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llmembed.contract import Classifier, Silent, Task
from llmembed.errors import UnsupportedError
from llmembed.methods import load
from llmembed.methods.prompted.carp import Carp
from llmembed.methods.prompted.prompt import Prompting

sys.path.append(str(Path(__file__).parent / "generation"))
from test_contract import TAGS, TOPIC, WORDS, make_examples
from tiny_bert import save_tiny_bert
from tiny_llama import save_tiny_llama

ASKING = ("prompt", "carp")


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    from llmembed.generation.building import build_generator

    folder = tmp_path_factory.mktemp("asked")
    model = save_tiny_llama(folder / "tiny-llama")
    return build_generator({"model": str(model), "cache": str(folder / "answers.sqlite")})


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    from llmembed.cluster import LocalRuntime

    with LocalRuntime(tmp_path_factory.mktemp("files")) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def data():
    return make_examples(40, 0), make_examples(10, 1), make_examples(12, 2)


@pytest.fixture(scope="module")
def tiny_spec(tmp_path_factory):
    """A tiny BERT that knows the words of these texts."""
    from llmembed.backbones import resolve

    words = {word for known in WORDS.values() for word in known.split()}
    folder = save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert", words)
    return resolve(str(folder), reads="mean:1-2 cls:1", max_tokens=24, dtype="float32")


def make(name: str, generator, tiny_spec):
    from llmembed.backbones import View, parse_reads

    view = View(backbone=tiny_spec, reads=parse_reads("mean:1"))
    if name == "prompt":
        return Prompting(generator=generator, view=view, k=2, decision="score")
    lengths = {"max_answer_tokens": 12, "max_rationale_tokens": 8}
    return Carp(generator=generator, view=view, k=2, **lengths)


@pytest.fixture(scope="module", params=ASKING)
def fitted(request, generator, tiny_spec, data, runtime):
    method = make(request.param, generator, tiny_spec)
    return method, method.fit([TOPIC], data[0], data[1], runtime, Silent())


def test_it_answers_and_says_what_it_took(fitted, data, runtime):
    method, classifier = fitted
    assert isinstance(classifier, Classifier)
    answer = classifier.predict(data[2].texts, runtime)["topic"]
    assert answer.labels.shape == answer.invalid.shape == (12,)
    assert answer.scores.shape == (12, 3)
    assert ((answer.labels >= 0) | answer.invalid).all()
    valid = answer.scores[~answer.invalid]
    np.testing.assert_allclose(valid.sum(axis=1), 1, atol=1e-4)
    assert classifier.predict_usage.tokens > 12 * 20
    assert classifier.predict_usage.energy_joules > 0
    assert method.machinery_only, "an untrained model says nothing of accuracy"


def test_saved_it_answers_the_same(fitted, data, runtime, tmp_path):
    _, classifier = fitted
    texts = data[2].texts
    before = classifier.predict(texts, runtime)["topic"]
    classifier.save(tmp_path / "saved")
    kinds = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors"}
    loaded = load(tmp_path / "saved")
    assert loaded.method == classifier.method
    assert loaded.tasks == classifier.tasks
    after = loaded.predict(texts, runtime)["topic"]
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_allclose(before.scores, after.scores, atol=1e-5)


def test_one_text_and_no_text(fitted):
    _, classifier = fitted
    assert classifier.predict(["wheat"])["topic"].labels.shape == (1,)
    nothing = classifier.predict([])["topic"]
    assert nothing.labels.shape == (0,)
    assert nothing.scores.shape == (0, 3)


@pytest.mark.parametrize("name", ASKING)
def test_several_labels_a_text_are_refused(name, generator, tiny_spec, data, runtime):
    with pytest.raises(UnsupportedError, match="'tags'"):
        make(name, generator, tiny_spec).fit([TAGS], data[0], data[1], runtime, Silent())


def test_carp_refuses_word_labels(generator, tiny_spec, data, runtime):
    slots = Task(name="slots", classes=("O", "B-x"), kind="tokens")
    with pytest.raises(UnsupportedError, match="'slots'"):
        make("carp", generator, tiny_spec).fit([slots], data[0], data[1], runtime, Silent())
