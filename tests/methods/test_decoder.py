"""``decoder``: a tiny causal model taught to answer, alone and consolidated."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmembed.contract import Classifier, Examples, Silent, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.finetuning import FinetuneConfig, LoraSettings
from llmembed.methods import load
from llmembed.methods.decoder import Decoder

sys.path.append(str(Path(__file__).parent.parent / "generation"))
from tiny_llama import save_tiny_llama

TOPIC = Task(name="topic", classes=("oil", "rates"))
SLOTS = Task(name="slots", classes=("O", "B-good", "B-bank", "I-bank"), kind="tokens")
TRAINING = FinetuneConfig(
    learning_rate=1e-2, epochs=12, batch=16, precision="fp32", weight_decay=0.0, max_tokens=512
)


def make_examples(count: int, seed: int) -> Examples:
    """``the oil rose rose``, ``the banks cut rose`` and the like: four texts."""
    rng = np.random.default_rng(seed)
    words, topic, slots = [], [], []
    for _ in range(count):
        label = int(rng.integers(2))
        middle, tags = ([["oil"], ["banks", "cut"]][label], [[1], [2, 3]][label])
        before = ["the"]
        after = ["rose"] * int(rng.integers(1, 3))
        words.append([*before, *middle, *after])
        slots += [*[0] * len(before), *tags, *[0] * len(after)]
        topic.append(label)
    labels = {"topic": np.array(topic, np.int64), "slots": np.array(slots, np.int64)}
    return Examples(texts=[" ".join(each) for each in words], labels=labels, words=words)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", layers=1))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    from llmembed.cluster import LocalRuntime

    with LocalRuntime(tmp_path_factory.mktemp("files")) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def data():
    return make_examples(96, 0), make_examples(16, 1), make_examples(24, 2)


class Heard:
    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def report(self, metrics, *, step: int) -> None:
        self.told.append((step, dict(metrics)))


@pytest.fixture(scope="module")
def single(tiny, data, runtime):
    heard = Heard()
    method = Decoder(model=tiny, instructions=False, training=TRAINING)
    return method, method.fit([TOPIC], data[0], data[1], runtime, heard), heard


def test_it_learns_to_answer_and_reports_both_decisions(single, data, runtime):
    method, classifier, heard = single
    assert isinstance(classifier, Classifier)
    assert method.machinery_only, "an untrained base says nothing of accuracy"
    answer = classifier.predict(data[2].texts, runtime)["topic"]
    assert (answer.labels == data[2].labels["topic"]).mean() > 0.9
    assert classifier.predict_usage.tokens >= 4 * 20, "equal texts are answered once"
    assert set(classifier.chosen["valid_accuracy"]) == {"generate", "score"}
    names = {name for _, metrics in heard.told for name in metrics}
    assert {"valid/topic/accuracy_generate", "valid/topic/accuracy_score", "valid/loss"} <= names
    assert {"train/loss", "tokens_per_second", "joules/worker_0"} <= names


def test_saved_it_answers_the_same_and_is_a_plain_folder(single, data, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, classifier, _ = single
    classifier.save(tmp_path / "saved")
    shutil.copytree(tmp_path / "saved", tmp_path / "elsewhere")
    loaded = load(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")  # as in a worker, which unpacks it for the while
    assert (loaded.method, loaded.tasks) == (classifier.method, classifier.tasks)
    assert loaded.parameters_trained == classifier.parameters_trained > 0
    before, after = (c.predict(data[2].texts)["topic"] for c in (classifier, loaded))
    np.testing.assert_array_equal(before.labels, after.labels)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved" / "model")
    assert sum(p.numel() for p in model.parameters()) == loaded.parameters_trained
    AutoTokenizer.from_pretrained(tmp_path / "saved" / "model")


def test_one_text_and_no_text(single):
    _, classifier, _ = single
    assert classifier.predict(["the oil rose"])["topic"].labels.shape == (1,)
    assert classifier.predict([])["topic"].labels.shape == (0,)


def test_several_tasks_are_answered_by_one_json_object(tiny, data, runtime):
    training = replace(TRAINING, epochs=30)
    method = Decoder(model=tiny, instructions=False, training=training)
    classifier = method.fit([TOPIC, SLOTS], data[0], data[1], runtime, Silent())
    found = classifier.predict(data[2].texts)
    assert (found["topic"].labels == data[2].labels["topic"]).mean() > 0.9
    np.testing.assert_array_equal(found["slots"].offsets, data[2].offsets)
    assert (found["slots"].labels == data[2].labels["slots"]).mean() > 0.8


def test_lora_trains_few_weights_and_leaves_a_plain_model(tiny, data, runtime, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    training = FinetuneConfig(
        learning_rate=1e-2, max_steps=6, batch=16, precision="fp32", lora=LoraSettings(rank=4)
    )
    method = Decoder(model=tiny, instructions=False, decision="generate", training=training)
    classifier = method.fit([TOPIC], data[0], data[1], runtime, Silent())
    classifier.save(tmp_path / "saved")
    folder = tmp_path / "saved" / "model"
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert 0 < classifier.parameters_trained < sum(p.numel() for p in plain.parameters()) / 2
    beside = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny), str(folder / "adapter")
    )
    ids = torch.arange(3, 20)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny)(ids).logits
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, beside(ids).logits, atol=1e-4, rtol=1e-4)
    assert (plain(ids).logits - base).abs().max() > 1e-3, "training changed nothing"


def test_loss_lies_on_the_answer_and_long_texts_are_cut_in_the_text(tiny, data):
    from llmembed.finetuning.rows import NO_LABEL
    from llmembed.methods.asking import make_question
    from llmembed.methods.decoder_rows import AnswerEncoder
    from llmembed.methods.demonstrations import Demonstrations
    from llmembed.prompts.question import variant_of

    nothing = Demonstrations(kind="none", k=0, pool=data[0].select([]))
    question = make_question([TOPIC], variant_of([TOPIC]))
    encoder = AnswerEncoder(
        location=tiny, revision=None, context=420, question=question, demonstrations=nothing
    )
    long = Examples(
        texts=["the oil " * 300, "the oil rose"], labels={"topic": np.array([0, 0])}, words=None
    )
    rows, cut = encoder.rows(long, encoder.longest_answer(long))
    assert cut == 1
    tokeniser = encoder._tokens.tokeniser
    whole = [tokeniser.decode(ids) for ids in rows.ids]
    assert len(rows.ids[0]) <= 420
    for text in whole:
        assert text.startswith("<s>You are") or "You are" in text[:20]
        assert text.endswith("Label: oil</s>")
    labels = rows.rows(0).labels["answer"]
    said = [tokeniser.decode([i for i in row if i != NO_LABEL]) for row in labels]
    assert said == [" oil</s>", " oil</s>"]


def test_what_it_cant_do_is_refused_by_name(tiny, data, runtime):
    tags = Task(name="tags", classes=("a", "b"), kind="multi")
    with pytest.raises(UnsupportedError, match="'tags'"):
        Decoder(model=tiny).fit([tags], data[0], data[1], runtime, Silent())
    with pytest.raises(ConfigError, match="decision: score is for one task"):
        Decoder(model=tiny, decision="score").fit(
            [TOPIC, SLOTS], data[0], data[1], runtime, Silent()
        )
    with pytest.raises(ConfigError, match="no place for shots"):
        Decoder(model=tiny, instructions=False, shots=2)
