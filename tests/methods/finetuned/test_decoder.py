"""``decoder``: a tiny causal model taught to answer, alone and consolidated."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmembed.contract import Classifier, Examples, Silent, Task
from llmembed.errors import ConfigError, ModelError, UnsupportedError
from llmembed.evaluation.latency import measure_latency
from llmembed.finetuning import FinetuneConfig, LoraSettings
from llmembed.finetuning.answers import SHIP_AT_MOST
from llmembed.methods import load
from llmembed.methods.finetuned.decoder import Decoder
from llmembed.methods.finetuned.model_folder import check_reach

sys.path.append(str(Path(__file__).parents[2] / "generation"))
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
    from llmembed.methods.demonstrations import Demonstrations
    from llmembed.methods.finetuned.decoder_rows import AnswerEncoder
    from llmembed.prompts.question import make_question, variant_of

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


def test_files_that_not_all_machines_see_are_refused_before_training(tiny, data, tmp_path):
    from llmembed.cluster import LocalRuntime

    class Cluster(LocalRuntime):
        machines = 3

    elsewhere = Cluster("s3://bucket/files")
    with pytest.raises(ConfigError, match=r"3 machines must all see: .* not s3://bucket/files"):
        Decoder(model=tiny).fit([TOPIC], data[0], data[1], elsewhere, Silent())
    with pytest.raises(ConfigError, match="3 machines must all see"):
        check_reach(elsewhere, 1 + SHIP_AT_MOST)  # roberta-large, say
    check_reach(elsewhere, SHIP_AT_MOST)
    check_reach(LocalRuntime(tmp_path), None)


def with_lora(runtime, tiny, data, *, merge=None, quantise=None, rank=4):
    training = FinetuneConfig(
        learning_rate=1e-2,
        max_steps=6,
        batch=16,
        precision="fp32",
        lora=LoraSettings(rank=rank, merge=merge),
        quantise=quantise,
    )
    method = Decoder(model=tiny, instructions=False, decision="score", training=training)
    return method.fit([TOPIC], data[0], data[1], runtime, Silent())


def test_adapters_alone_refer_to_their_base_and_answer_as_the_merged_model(
    tiny, data, runtime, tmp_path
):
    merged = with_lora(runtime, tiny, data).predict(data[2].texts)["topic"]
    apart = with_lora(runtime, tiny, data, merge=False)
    apart.save(tmp_path / "saved")
    held = sum(file.stat().st_size for file in (tmp_path / "saved").rglob("*.safetensors"))
    whole = sum(file.stat().st_size for file in Path(tiny).rglob("*.safetensors"))
    assert held < whole / 2, "the base was copied"
    assert apart.memory_bytes > 0.9 * whole, "the base answers too"
    loaded = load(tmp_path / "saved")
    assert loaded.base == apart.base
    assert loaded.base.weights_sha256 and loaded.base.location == tiny
    found = loaded.predict(data[2].texts, runtime)["topic"]
    np.testing.assert_allclose(found.scores, merged.scores, atol=1e-4)
    assert any("adapters alone, answering over tiny@" in note for note in apart.notes)
    latency, _ = measure_latency(loaded, data[2].texts, n_texts=2)
    assert latency is not None and latency.texts == 2
    assert loaded._asks.generator._model is None, "the model stays in memory"


def test_adapters_over_another_base_than_their_own_are_refused(data, runtime, tmp_path):
    base = save_tiny_llama(tmp_path / "base", layers=1)
    with_lora(runtime, str(base), data, merge=False).save(tmp_path / "saved")
    manifest = tmp_path / "saved" / "classifier.json"
    moved = manifest.read_text().replace(str(base), str(tmp_path / "nowhere"))
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x11")
    with pytest.raises(ModelError, match=r"the weights of .*base hash to"):
        load(tmp_path / "saved")
    manifest.write_text(moved)
    with pytest.raises(ModelError, match=r"there is no folder .*nowhere"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("bits", [4, 8])
def test_adapters_learn_over_a_quantised_base_which_answers_too(bits, data, runtime, tmp_path):
    pytest.importorskip("bitsandbytes", reason="pip install 'llmembed[quantise]'")
    base = save_tiny_llama(tmp_path / "base", layers=1, width=64)
    training = replace(TRAINING, lora=LoraSettings(rank=8), quantise=bits, epochs=6)
    heard = Heard()
    method = Decoder(model=str(base), instructions=False, training=training)
    fitted = method.fit([TOPIC], data[0], data[1], runtime, heard)
    fitted.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert (loaded.quantise, loaded.base.location) == (bits, str(base))
    layer = loaded._asks.generator.model.model.model.layers[0].mlp.up_proj.base_layer
    assert type(layer).__name__ == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    held = sum(p.numel() for p in loaded._asks.generator.model.model.parameters())
    assert 0 < loaded.parameters_trained < held / 2
    before, after = (c.predict(data[2].texts)["topic"] for c in (fitted, loaded))
    np.testing.assert_array_equal(before.labels, after.labels)
    assert (after.labels == data[2].labels["topic"]).mean() > 0.9
    # What validation said while training is what the saved model does: same quantised weights.
    told = [row for _, row in heard.told if "valid/topic/accuracy_score" in row][-1]
    assert max(told.values()) > 0.9


def test_weights_that_4_bit_would_read_wrongly_are_refused(tiny, data, runtime):
    pytest.importorskip("bitsandbytes", reason="pip install 'llmembed[quantise]'")
    with pytest.raises(UnsupportedError, match="32 inputs, not a multiple of 64"):
        with_lora(runtime, tiny, data, quantise=4)


def test_without_bitsandbytes_it_says_what_to_install(tiny, data, runtime, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    with pytest.raises(UnsupportedError, match=r"quantise: 8 needs .*llmembed\[quantise\]"):
        with_lora(runtime, tiny, data, quantise=8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quantise": 4}, "quantise: 4 needs lora"),
        ({"quantise": 5, "lora": LoraSettings()}, "quantise is 5: expected 4 or 8"),
        ({"quantise": 8, "lora": LoraSettings(merge=True)}, "lora.merge can't be true"),
    ],
)
def test_quantised_weights_are_neither_trained_nor_merged(settings, words):
    with pytest.raises(ConfigError, match=words):
        FinetuneConfig(**settings)
