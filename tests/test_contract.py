"""Every method through the same tests: what the contract promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import save_tiny_bert

from llmembed.contract import Classifier, Examples, OverBackbones, Silent, Task
from llmembed.errors import ModelError, UnsupportedError
from llmembed.experiment import Experiment
from llmembed.methods import METHODS, load
from llmembed.pipelines.methods import Assembler

WORDS = {
    "trade": "exports tariffs imports surplus trade deficit partners customs",
    "grain": "wheat corn harvest bushels crop grain farmers silo",
    "ship": "port vessel cargo tanker crew strait dock ship",
}
CLASSES = tuple(WORDS)
TRAINED = [
    name for name in METHODS if name not in ("decoder", "separate", "prompt", "carp", "ensemble")
]
"""Those that write: see ``test_contract_asked.py`` and ``methods/finetuned/test_decoder.py``; the
one that is made of others: see ``methods/combined``."""
TOPIC = Task(name="topic", classes=CLASSES)
LONG = Task(name="long", classes=("no", "yes"))
TAGS = Task(name="tags", classes=CLASSES, kind="multi")


def make_examples(count: int, seed: int) -> Examples:
    """Texts of words of one or two topics; every label follows from the words."""
    rng = np.random.default_rng(seed)
    texts, topic, long, tags = [], [], [], []
    for _ in range(count):
        first, second = rng.choice(3, size=2, replace=False)
        both, length = bool(rng.random() < 0.4), int(rng.integers(6, 24))
        words = list(rng.choice(WORDS[CLASSES[first]].split(), size=length))
        if both:
            words += list(rng.choice(WORDS[CLASSES[second]].split(), size=5))
        texts.append(" ".join(words))
        topic.append(first)
        long.append(length > 14)
        row = np.zeros(3, dtype=bool)
        row[[first, *([second] if both else [])]] = True
        tags.append(row)
    labels = {
        "topic": np.array(topic, dtype=np.int64),
        "long": np.array(long, dtype=np.int64),
        "tags": np.array(tags),
    }
    return Examples(texts=texts, labels=labels)


@pytest.fixture(scope="module")
def data() -> tuple[Examples, Examples, Examples]:
    return make_examples(240, 0), make_examples(60, 1), make_examples(60, 2)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    from llmembed.cluster import LocalRuntime

    with LocalRuntime(tmp_path_factory.mktemp("files")) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """``make(name)`` -> that method over the real MiniLM; what is trained whole, over a tiny
    BERT."""
    pytest.importorskip("safetensors")
    words = {word for known in WORDS.values() for word in known.split()}
    tiny = save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert", words)
    said = {
        "fused": {
            "fusion": "co_avg_cat",
            "lexical": 16,
            "views": {"L": "encoder mean:1-5", "B": "encoder pooler"},
        },
        "encoder": {
            "model": str(tiny),
            "training": {"learning_rate": 3e-3, "epochs": 8, "batch": 16, "precision": "fp32"},
        },
    }

    def build(name: str):
        methods = {name: {"kind": name, **said.get(name, {})}}
        return Assembler(Experiment.model_validate({"methods": methods})).method(name)

    return build


@pytest.fixture(scope="module", params=TRAINED)
def fitted(request, make, data, runtime):
    train, valid, _ = data
    method = make(request.param)
    return method, method.fit([TOPIC, TAGS], train, valid, runtime, Silent())


def test_it_answers_every_task_in_one_call(fitted, data, runtime):
    _, classifier = fitted
    test = data[2]
    assert isinstance(classifier, Classifier)
    predictions = classifier.predict(test.texts, runtime)
    assert list(predictions) == ["topic", "tags"]
    topic, tags = predictions["topic"], predictions["tags"]
    assert topic.labels.shape == (60,)
    assert topic.scores.shape == (60, 3)
    np.testing.assert_allclose(topic.scores.sum(axis=1), 1, atol=1e-4)
    assert tags.labels.shape == (60, 3)
    assert tags.labels.dtype == bool
    assert tags.scores.min() >= 0
    assert tags.scores.max() <= 1
    # Words decide the topic, so anything that learned does much better than one in three.
    assert (topic.labels == test.labels["topic"]).mean() > 0.8
    assert (tags.labels == test.labels["tags"]).mean() > 0.8


def test_a_saved_classifier_answers_the_same(fitted, data, tmp_path: Path, runtime):
    _, classifier = fitted
    classifier.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert loaded.method == classifier.method
    assert loaded.tasks == classifier.tasks
    assert loaded.fit_usage == classifier.fit_usage
    assert loaded.parameters_trained == classifier.parameters_trained > 0
    before, after = (c.predict(data[2].texts, runtime) for c in (classifier, loaded))
    for task in ("topic", "tags"):
        np.testing.assert_array_equal(before[task].labels, after[task].labels)
        np.testing.assert_allclose(before[task].scores, after[task].scores, atol=1e-6)


def test_the_folder_holds_json_and_safetensors_only(fitted, tmp_path: Path):
    fitted[1].save(tmp_path / "saved")
    kinds = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors"}
    size = sum(p.stat().st_size for p in (tmp_path / "saved").rglob("*") if p.is_file())
    assert size < 20 * 2**20, "a frozen backbone is referenced, never copied"


def test_with_and_without_a_runtime_the_answers_agree(fitted, data, runtime):
    _, classifier = fitted
    texts = data[2].texts[:12]
    here, stored = classifier.predict(texts), classifier.predict(texts, runtime)
    for task in ("topic", "tags"):
        np.testing.assert_allclose(here[task].scores, stored[task].scores, atol=0.05)


def test_one_text_and_no_text(fitted):
    _, classifier = fitted
    assert classifier.predict(["wheat"])["topic"].labels.shape == (1,)
    nothing = classifier.predict([])
    assert nothing["topic"].labels.shape == (0,)
    assert nothing["topic"].scores.shape == (0, 3)
    assert nothing["tags"].labels.shape == (0, 3)


def test_what_it_took_is_known(fitted, data):
    _, classifier = fitted
    usage = classifier.fit_usage
    assert usage.seconds > 0
    assert usage.energy_joules > 0
    if isinstance(classifier, OverBackbones):
        assert usage.tokens > len(data[0]) * 6, "embeddings bear their cost, cached or not"


def test_the_same_seed_gives_the_same_classifier(fitted, data, runtime):
    method, classifier = fitted
    train, valid, test = data
    again = method.seeded(0).fit([TOPIC, TAGS], train, valid, runtime, Silent())
    ours = classifier.predict(test.texts, runtime)["topic"].scores
    np.testing.assert_array_equal(again.predict(test.texts, runtime)["topic"].scores, ours)


def test_views_given_are_as_good_as_views_read(fitted, data, runtime):
    _, classifier = fitted
    if not isinstance(classifier, OverBackbones):
        pytest.skip("this method reads no backbone")
    texts = data[2].texts
    views, _ = classifier.reader.read(texts, runtime)
    assert set(views) == set(classifier.backbones)
    given = classifier.predict_views(views, texts)["topic"].scores
    np.testing.assert_array_equal(given, classifier.predict(texts, runtime)["topic"].scores)


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "encoder"])
def test_a_task_it_cant_do_is_refused_by_name(name, make, data, runtime):
    slots = Task(name="slots", classes=("O", "B-x"), kind="tokens")
    train, valid, _ = data
    with pytest.raises(UnsupportedError, match=f"'{name}'.*'slots'"):
        make(name).fit([slots], train, valid, runtime, Silent())


@pytest.mark.parametrize("name", TRAINED)
def test_two_classes_and_a_class_without_a_training_row(name, make, data, runtime):
    train, valid, test = data
    three = Task(name="long", classes=("no", "yes", "never seen"))
    classifier = make(name).fit([three], train, valid, runtime, Silent())
    answer = classifier.predict(test.texts, runtime)["long"]
    assert set(np.unique(answer.labels)) <= {0, 1}
    assert answer.scores.shape == (60, 3)
    assert answer.scores[:, 2].max() < 0.2
    assert (answer.labels == test.labels["long"]).mean() > 0.55


def test_a_folder_that_is_no_classifier(tmp_path: Path):
    with pytest.raises(ModelError, match="not a saved classifier"):
        load(tmp_path)
    (tmp_path / "classifier.json").write_text(json.dumps({"method": "magic"}))
    with pytest.raises(ModelError, match="'magic', which is unknown here"):
        load(tmp_path)
