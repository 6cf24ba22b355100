"""Order of rows, first sub-words, what may be set: the parts that need no training."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_bert import save_tiny_bert
from transformers import AutoTokenizer

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError
from llmembed.finetuning import FinetuneConfig, LoraSettings
from llmembed.finetuning.order import order_of
from llmembed.finetuning.rows import NO_LABEL, encode_examples, encode_texts
from llmembed.finetuning.speed import peak_flops


def test_every_row_comes_once_before_any_comes_twice():
    lengths = np.arange(40) % 7
    order = order_of(lengths, batch=8, steps=10, seed=3)
    assert order.shape == (80,)
    assert np.bincount(order).tolist() == [2] * 40
    np.testing.assert_array_equal(order, order_of(lengths, batch=8, steps=10, seed=3))
    assert (order != order_of(lengths, batch=8, steps=10, seed=4)).any()


def test_rows_of_a_step_are_of_like_length():
    lengths = np.random.default_rng(0).integers(5, 200, size=800)
    steps = lengths[order_of(lengths, batch=16, steps=50, seed=0)].reshape(50, 16)
    padded = (steps.max(axis=1) * 16).sum() / lengths.sum()
    assert padded < 1.15


def test_without_grouping_rows_come_as_the_seed_shuffles_them():
    lengths = np.random.default_rng(0).integers(5, 200, size=800)
    order = order_of(lengths, batch=16, steps=60, seed=0, grouped=False)
    assert np.bincount(order[:800]).tolist() == [1] * 800
    np.testing.assert_array_equal(
        order, order_of(lengths, batch=32, steps=30, seed=0, grouped=False)
    )
    steps = lengths[order].reshape(60, 16)
    assert (steps.max(axis=1) * 16).sum() / steps.sum() > 1.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"warmup": 1.5}, "warmup is 1.5"),
    ],
)
def test_values_out_of_range_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        FinetuneConfig(**changes)


def test_a_batch_is_shared_and_accumulated_evenly():
    config = FinetuneConfig(batch=48, micro_batch=10)
    assert config.micro(1) == (8, 6)
    assert config.micro(4) == (6, 2)
    with pytest.raises(ConfigError, match="48 rows can't be shared evenly by 5"):
        config.micro(5)


def test_settings_survive_json():
    config = FinetuneConfig.paper_decoder(lora=LoraSettings(targets=["q_proj"]), epochs=2)
    assert FinetuneConfig.from_json(config.to_json()) == config


@pytest.fixture(scope="module")
def tokeniser(tmp_path_factory):
    folder = save_tiny_bert(tmp_path_factory.mktemp("model"), ["wake", "me", "at", "five", "am"])
    return AutoTokenizer.from_pretrained(folder)


def test_tags_lie_on_the_first_sub_word_of_each_word(tokeniser):
    # `five-am` is three tokens, of which the first bears the tag.
    slots = Task(name="slots", classes=("O", "B-time"), kind="tokens")
    words = [["wake", "me", "at", "five-am"], ["at"]]
    examples = Examples(
        texts=["ignored", "ignored"], words=words, labels={"slots": np.array([0, 0, 0, 1, 0])}
    )
    rows = encode_examples(tokeniser, [slots], examples, 64)
    no = NO_LABEL
    assert [list(tags) for tags in rows.labels["slots"]] == [
        [no, 0, 0, 0, 1, no, no, no],
        [no, 0, no],
    ]
    batch = rows.batch([1, 0])
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 8]
    assert batch["labels/slots"][0].tolist() == [no, 0, *[no] * 6]


def test_a_word_beyond_the_limit_has_no_place(tokeniser):
    ids, starts = encode_texts(tokeniser, ["wake me  at five am", ""], 5, words=True)
    assert [len(row) for row in ids] == [5, 2]
    assert starts[0].tolist() == [1, 2, 3, -1, -1]
    assert starts[1].tolist() == []


def test_a_declared_peak_must_be_a_number(monkeypatch):
    monkeypatch.setenv("LLMEMBED_PEAK_TFLOPS", "2.5")
    assert peak_flops() == 2.5e12
    monkeypatch.setenv("LLMEMBED_PEAK_TFLOPS", "fast")
    with pytest.raises(ConfigError, match="'fast'"):
        peak_flops()
