"""Models laid out otherwise than most: their vectors are the model's own, or they are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_models import save_odd
from tiny_models import make_text
from transformers import AutoModel, AutoTokenizer

from llmembed.backbones import Backbone, parse_reads, resolve
from llmembed.backbones.hooked import HookedForward, ListedForward
from llmembed.backbones.packed import PackedForward
from llmembed.errors import ModelError, UnsupportedError

TEXTS = [make_text(n, seed) for seed, n in enumerate([3, 40, 11, 1, 25, 11, 18])]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory):
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_odd(kind, tmp_path_factory.mktemp("odd") / kind)
        return made[kind]

    return make


def own(folder: Path, texts: list[str], reads: str) -> np.ndarray:
    """By the model itself, text by text: its output, and below it its list of hidden states."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            output = model(ids, output_hidden_states=True)
        row = []
        for read in parse_reads(reads):
            deep = (
                output.last_hidden_state if read.depth == 1 else output.hidden_states[-read.depth]
            )
            row.append(deep[0].mean(dim=0) if read.pooling == "mean" else deep[0, 0])
        rows.append(torch.stack(row).numpy())
    return np.stack(rows)


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    difference = np.linalg.norm(found - wanted, axis=-1)
    return float((difference / np.linalg.norm(wanted, axis=-1)).max())


@pytest.mark.parametrize(
    "kind, reads, way, alone",
    [
        ("xlnet", "mean:1-4 cls:2", ListedForward, False),
        ("opt-350m", "mean:1 cls:1", HookedForward, False),
        ("opt-350m", "mean:2-4", HookedForward, False),
        ("deberta-conv", "mean:1-4", ListedForward, False),
        ("convbert", "mean:1-4 cls:1", HookedForward, True),
        ("fnet", "mean:1-3", HookedForward, True),
        ("gemma3n", "mean:1 cls:1", ListedForward, False),
        ("mamba", "mean:1-4", ListedForward, False),
        ("rwkv", "mean:1-4", ListedForward, False),
    ],
)
def test_vectors_are_the_models_own(odd, caplog, kind, reads, way, alone):
    with caplog.at_level(logging.WARNING):
        backbone = Backbone(resolve(str(odd(kind)), reads=reads, dtype="float32"))
    assert (type(backbone.reading.way), backbone.reading.alone) == (way, alone)
    told = [r.getMessage() for r in caplog.records if r.name == "llmembed.backbones.backbone"]
    slower = (way is ListedForward and kind != "gemma3n") or alone  # whose blocks aren't found
    assert told == ([backbone.reading.why] if slower else [])
    assert not slower or told[0].startswith(f"{kind} is read ")
    tokens = backbone.tokeniser(TEXTS)
    assert off(backbone.embed(tokens), own(odd(kind), TEXTS, reads)) < 1e-5


def test_as_many_texts_as_tokens(odd):
    """What takes (tokens, texts) for (texts, tokens) does not fail on its shape."""
    backbone = Backbone(resolve(str(odd("xlnet")), reads="mean:2", dtype="float32"))
    texts = [make_text(11, seed) for seed in range(13)]
    tokens = backbone.tokeniser(texts)
    assert tokens.window_lengths.tolist() == [len(texts)] * len(texts)
    assert off(backbone.embed(tokens), own(odd("xlnet"), texts, "mean:2")) < 1e-5


@pytest.mark.parametrize(
    "kind, reads, words",
    [
        ("gemma3n", "mean:1-2", r"can't be read at depth 2: its states there have the shape \(4, "),
        ("opt-350m", "mean:1-2", "is 16 wide at depth 1 and 32 at others"),
        ("bigbird", "mean:1", "set max_tokens to 56 or less"),
    ],
)
def test_what_can_not_be_read_is_refused_in_one_sentence(odd, kind, reads, words):
    with pytest.raises(UnsupportedError, match=words) as refused:
        Backbone(resolve(str(odd(kind)), reads=reads, dtype="float32"))
    assert "\n" not in str(refused.value)


def test_sparse_attention_is_read_where_no_text_is_long_enough_for_it(odd):
    spec = resolve(str(odd("bigbird")), reads="mean:1-4", max_tokens=56, dtype="float32")
    backbone = Backbone(spec)
    texts = [text for text in TEXTS if len(backbone.tokeniser([text]).ids) < 56]
    assert len(texts) > 3
    wanted = own(odd("bigbird"), texts, "mean:1-4")
    assert off(backbone.embed(backbone.tokeniser(texts)), wanted) < 1e-5


def test_numbers_that_change_go_to_a_store_of_their_own(odd):
    """Version 2 read mamba by hooks, one entry of its list away, below its output."""
    version = {
        reads: resolve(str(odd("mamba")), reads=reads, dtype="float32").extractor_version
        for reads in ("mean:1", "mean:1-2")
    }
    assert version == {"mean:1": 2, "mean:1-2": 3}


def test_ordinary_models_are_read_as_fast_as_before(tiny):
    bert, llama = (Backbone(resolve(str(tiny(k)), dtype="float32")) for k in ("bert", "llama"))
    assert type(bert.reading.way) is PackedForward
    assert type(llama.reading.way) is HookedForward
    assert (bert.reading.alone, llama.reading.alone) == (False, False)
    assert bert.work.batches == llama.work.batches == 0  # the probe counts for nothing


def test_weights_that_are_not_finite_are_refused_at_loading(tiny, tmp_path):
    model = AutoModel.from_pretrained(tiny("bert"))
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[0, 0] = torch.nan
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="not finite"):
        Backbone(resolve(str(tmp_path), dtype="float32"))
