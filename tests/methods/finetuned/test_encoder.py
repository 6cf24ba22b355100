"""``encoder`` beyond the contract's tests: words and texts at once, actors, what is saved."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import save_tiny_bert

from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.contract import Examples, Silent, Task
from llmembed.errors import ConfigError, ModelError, UnsupportedError
from llmembed.evaluation import Result, score
from llmembed.finetuning import FinetuneConfig, LoraSettings
from llmembed.methods import load
from llmembed.methods.finetuned.base import Spread
from llmembed.methods.finetuned.encoder import Encoder
from llmembed.pipelines.compare.keeper import Keeper

sys.path.append(str(Path(__file__).parents[2]))

WORDS = ["wake", "me", "play", "at", "by", "five", "six", "am", "queen", "abba", "please"]
INTENT = Task(name="intent", classes=("alarm", "music"))
SLOTS = Task(name="slots", classes=("O", "B-time", "I-time", "B-artist"), kind="tokens")
TRAINING = FinetuneConfig(learning_rate=5e-3, epochs=10, batch=16, precision="fp32")


def make_examples(count: int, seed: int) -> Examples:
    """``wake me at five am`` or ``play abba please`` and the like."""
    rng = np.random.default_rng(seed)
    words, intent, slots = [], [], []
    for _ in range(count):
        label = int(rng.integers(2))
        if label == 0:
            words.append(["wake", "me", "at", str(rng.choice(["five", "six"])), "am"])
            tags = [0, 0, 0, 1, 2]
        else:
            words.append(["play", str(rng.choice(["queen", "abba"])), "please"])
            tags = [0, 3, 0]
        intent.append(label)
        slots += tags
    labels = {"intent": np.array(intent, np.int64), "slots": np.array(slots, np.int64)}
    return Examples(texts=[" ".join(each) for each in words], labels=labels, words=words)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert", WORDS))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def fitted(tiny, files):
    method = Encoder(model=tiny, training=TRAINING)
    return method.fit(
        [INTENT, SLOTS], make_examples(160, 0), make_examples(32, 1), LocalRuntime(files), Silent()
    )


def test_one_model_answers_texts_and_words(fitted):
    test = make_examples(40, 2)
    found = fitted.predict(test.texts)
    assert (found["intent"].labels == test.labels["intent"]).mean() == 1
    slots = found["slots"]
    np.testing.assert_array_equal(slots.offsets, test.offsets)
    assert slots.scores.shape == (len(test.labels["slots"]), 4)
    np.testing.assert_allclose(slots.scores.sum(axis=1), 1, atol=1e-4)
    assert score(SLOTS, test.labels["slots"], slots).metrics["slot_f1"] > 0.9


def test_words_beyond_the_limit_are_outside(fitted):
    short = replace(fitted, max_tokens=8)
    found = short.predict(["wake me at five am please please please", "", "play abba"])["slots"]
    assert found.offsets.tolist() == [0, 8, 8, 10]
    assert short.notes[-1] == "of 3 texts: 1 filled all 8 tokens, cut as a rule"
    assert found.labels[6:8].tolist() == [0, 0]
    assert found.scores[6:8, 0].min() > 0.9


def test_a_text_is_answered_the_same_alone_and_among_others(fitted):
    texts = make_examples(20, 3).texts
    together = fitted.predict(texts)["intent"].scores
    alone = np.concatenate([fitted.predict([text])["intent"].scores for text in texts])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_actors_answer_as_this_process_does(fitted, files, local_ray):
    texts = make_examples(150, 4).texts
    with RayRuntime(files, actors=2) as runtime:
        there = fitted.predict(texts, runtime)
    tokens = fitted.predict_usage.tokens
    here = fitted.predict(texts)
    assert tokens == fitted.predict_usage.tokens > 150 * 5
    for task in ("intent", "slots"):
        np.testing.assert_allclose(there[task].scores, here[task].scores, atol=1e-5)


@pytest.mark.variant
@pytest.mark.slow
def test_a_training_that_ended_is_not_done_again_until_its_classifier_is_saved(
    tiny, tmp_path, local_ray
):
    method = Encoder(model=tiny, training=replace(TRAINING, epochs=2, log_steps=1))
    train, valid = make_examples(64, 0), make_examples(16, 1)
    heard: list[int] = []

    class Listens(Silent):
        def report(self, metrics, *, step):
            heard.extend([step] * ("train/loss" in metrics))

    with RayRuntime(tmp_path) as runtime:
        first = method.fit([INTENT], train, valid, runtime, Listens())
        assert len(set(heard)) == 8
        last = max(heard)
        heard.clear()
        before = first.predict(valid.texts)["intent"]
        [run] = first.kept_runs
        del first  # as where scoring it failed
        again = method.fit([INTENT], train, valid, runtime, Listens())
    assert set(heard) <= {last}, "trained anew, or its figures told at another step"
    after = again.predict(valid.texts)["intent"]
    np.testing.assert_array_equal(after.scores, before.scores)
    scores = {"intent": score(INTENT, valid.labels["intent"], after)}
    made = Result(method="encoder", label="it", seed=0, corpus="c", digest="d", valid=scores)
    with pytest.raises(OSError), Keeper() as keeper:
        keeper.offer(made, again, None)
        raise OSError("the registry is away")
    assert Path(run).is_dir()
    with Keeper() as keeper:
        keeper.offer(made, again, None)
    assert not Path(run).exists(), "saved, so that nobody goes on from it"


def test_what_is_saved_is_a_plain_folder_and_a_fits_own_goes_with_it(tiny, files, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    training = replace(TRAINING, epochs=1, loss_weights={"slots": 0.5})
    fit = Encoder(model=tiny, training=training).fit
    data = make_examples(32, 0), make_examples(16, 1)
    classifier = fit([INTENT, SLOTS], *data, LocalRuntime(files), Silent())
    before = classifier.predict(data[1].texts)["slots"].scores
    classifier.save(tmp_path / "saved")
    own = classifier.model.path
    assert own.is_dir()
    del classifier
    assert not own.exists(), "nobody needs what the fit left"
    encoder = tmp_path / "saved" / "model" / "encoder"
    AutoModel.from_pretrained(encoder)
    AutoTokenizer.from_pretrained(encoder)
    after = load(tmp_path / "saved").predict(data[1].texts)["slots"].scores
    np.testing.assert_array_equal(before, after)
    (encoder.parent / "heads.json").write_text("{")
    with pytest.raises(ModelError, match="holds no fine-tuned encoder"):
        load(tmp_path / "saved")


def test_it_says_what_cant_be(tiny, files):
    data = make_examples(16, 0), make_examples(8, 1)
    runtime = LocalRuntime(files)
    with pytest.raises(ConfigError, match="no task 'topic'; tasks are intent, slots"):
        training = FinetuneConfig(loss_weights={"topic": 2.0})
        Encoder(model=tiny, training=training).fit([INTENT, SLOTS], *data, runtime, Silent())
    with pytest.raises(ConfigError, match="lora is for decoders"):
        Encoder(model=tiny, training=FinetuneConfig(lora=LoraSettings()))
    with pytest.raises(UnsupportedError, match="ZeRO stage 2"):
        Encoder(model=tiny, spread=Spread(zero=2)).fit([INTENT], *data, runtime, Silent())
    with pytest.raises(ConfigError, match="lower learning_rate"):
        wild = FinetuneConfig(epochs=9, loss_weights={"intent": 1e39})
        Encoder(model=tiny, training=wild).fit([INTENT], *data, runtime, Silent())


def test_progress_holds_what_was_reached(tiny, files):
    from llmembed.finetuning.places import source_of
    from llmembed.finetuning.worker import EncoderWork, part_of

    tasks = (INTENT,)
    work = EncoderWork(
        source=source_of(tiny),
        tasks=tasks,
        train=part_of(make_examples(32, 0), tasks),
        valid=part_of(make_examples(16, 1), tasks),
        config=replace(TRAINING, epochs=2, log_steps=1),
    )
    done = LocalRuntime(files).train(work, name="progress")
    assert done.folder is not None
    told = json.loads((done.folder / "progress.json").read_text())
    assert told["done"]
    assert told["usage"]["tokens"] > 2 * 32 * 5
    assert [row["step"] for row in told["history"] if "train/loss" in row] == [1.0, 2.0, 3.0, 4.0]
