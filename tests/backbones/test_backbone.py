"""A backbone gives what plain Hugging Face gives, alone and in any batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import LAYERS, make_text, save_tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2Model,
    FlaubertConfig,
    FlaubertModel,
    XLMConfig,
    XLMModel,
)

from llmembed.backbones import Backbone, Read, best_dtype, parse_reads, resolve
from llmembed.backbones.hardware import check_dtype
from llmembed.errors import ModelError, UnsupportedError

KINDS = ["llama", "roberta", "bert"]
# A CPU that does not compute in bfloat16 is tested in what it does.
DTYPES = ["float32", *(["bfloat16"] if best_dtype("cpu") == "bfloat16" else [])]
TEXTS = [make_text(n, seed) for seed, n in enumerate([3, 40, 11, 1, 25, 11, 60, 0])]
# Of a vector's length; the docstring of Backbone states them.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


def plain(folder: Path, texts: list[str], reads: str, dtype: str = "float32") -> np.ndarray:
    """The same vectors by output_hidden_states=True, one text at a time."""
    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            output = model(ids, output_hidden_states=True, use_cache=False)
        row = []
        for read in parse_reads(reads):
            hidden = output.hidden_states[-read.depth][0].float()
            if read.pooling == "pooler":
                row.append(output.pooler_output[0].float())
            elif read.pooling == "mean":
                row.append(hidden.mean(dim=0))
            else:
                row.append(hidden[0 if read.pooling == "cls" else -1])
        rows.append(torch.stack(row).numpy())
    return np.stack(rows)


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest length of a difference as a share of its vector's length."""
    difference = np.linalg.norm(found - wanted, axis=-1)
    return float((difference / np.linalg.norm(wanted, axis=-1)).max())


def reads_of(kind: str) -> str:
    return "mean:1-5 cls:1-2 last_token:1,3" + (" pooler" if kind != "llama" else "")


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_plain_hugging_face(tiny, kind, dtype, reference):
    spec = resolve(str(tiny(kind)), reads=reads_of(kind), dtype=dtype)
    backbone = Backbone(spec, token_budget=128, reference=reference)
    found = backbone.embed(backbone.tokeniser(TEXTS))
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), len(spec.reads), 32)
    assert off(found, plain(tiny(kind), TEXTS, reads_of(kind), dtype)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_the_same_alone_and_in_any_batch(tiny, kind, dtype):
    backbone = Backbone(resolve(str(tiny(kind)), reads=reads_of(kind), dtype=dtype))
    together = backbone.embed(backbone.tokeniser(TEXTS))
    turned = backbone.embed(backbone.tokeniser(TEXTS[::-1] + TEXTS[:3]))
    alone = np.concatenate([backbone.embed(backbone.tokeniser([text])) for text in TEXTS])
    assert off(together, alone) < TOLERANCE[dtype]
    assert off(turned[: len(TEXTS)][::-1], alone) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reference", [False, True])
def test_blocks_after_the_last_read_change_nothing(tiny, kind, reference):
    folder = str(tiny(kind))
    whole = Backbone(resolve(folder, reads="mean:1-4", dtype="float32"), reference=reference)
    part = Backbone(resolve(folder, reads="mean:3-4", dtype="float32"), reference=reference)
    tokens = whole.tokeniser(TEXTS)
    assert np.array_equal(part.embed(tokens), whole.embed(tokens)[:, 2:])


def test_the_embeddings_are_the_deepest_read(tiny):
    spec = resolve(str(tiny("bert")), reads="mean:5", dtype="float32")
    backbone = Backbone(spec)
    found = backbone.embed(backbone.tokeniser(TEXTS))
    assert off(found, plain(tiny("bert"), TEXTS, "mean:5")) < 1e-5


def test_a_decoder_without_padding_token_and_its_final_norm(tiny):
    spec = resolve(str(tiny("llama")), reads="mean:1", dtype="float32")
    after = Backbone(spec)
    before = Backbone(resolve(str(tiny("llama")), reads="mean:1", dtype="float32", post_norm=False))
    tokens = after.tokeniser(TEXTS)
    # After RMSNorm with unit weight each token's mean square is 1; before, it is not.
    cls = Backbone(resolve(str(tiny("llama")), reads="cls:1", dtype="float32"))
    assert np.allclose((cls.embed(tokens) ** 2).mean(axis=-1), 1, atol=1e-3)
    assert off(before.embed(tokens), after.embed(tokens)) > 0.1
    assert before.spec.fingerprint() != spec.fingerprint()


def test_special_tokens_may_be_left_out_of_the_mean(tiny):
    spec = resolve(str(tiny("bert")), dtype="float32", count_special_tokens=False)
    backbone = Backbone(spec)
    model = AutoModel.from_pretrained(tiny("bert")).eval()
    tokens = backbone.tokeniser(TEXTS[:1])
    with torch.no_grad():
        hidden = model(torch.tensor(tokens.ids[None].astype(np.int64))).last_hidden_state
    wanted = hidden[:, 1:-1].mean(dim=1)[:, None].numpy()
    assert off(backbone.embed(tokens), wanted) < 1e-5


def test_mean_padded_is_over_a_fixed_length(tiny):
    spec = resolve(str(tiny("bert")), reads="mean_padded:1", dtype="float32", max_tokens=32)
    backbone = Backbone(spec)
    tokens = backbone.tokeniser(TEXTS[:2])
    model = AutoModel.from_pretrained(tiny("bert")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    inputs = tokenizer(
        TEXTS[:2], padding="max_length", truncation=True, max_length=32, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = model(**inputs).last_hidden_state.mean(dim=1)[:, None].numpy()
    # The second text is cut at 32 tokens: by us before [SEP], as the tokenizer does.
    assert off(backbone.embed(tokens), wanted) < 1e-5
    assert backbone.work.positions == 64


def test_windows_are_averaged_by_their_tokens(tiny):
    folder = str(tiny("bert"))
    windows = Backbone(resolve(folder, max_tokens=16, long_texts="windows", dtype="float32"))
    tokens = windows.tokeniser([TEXTS[0], TEXTS[6]])
    lengths = tokens.window_lengths
    assert len(lengths) > 3
    pieces = [
        windows.embed(type(tokens).of_windows([[list(ids)]], [len(ids)], [len(ids)]))
        for ids in np.split(tokens.ids, tokens.window_starts[1:-1])
    ]
    wanted = np.average(np.concatenate(pieces[1:]), axis=0, weights=lengths[1:])
    found = windows.embed(tokens)
    assert off(found[0], pieces[0][0]) < 1e-5
    assert off(found[1], wanted) < 1e-5


def test_no_text_and_an_empty_text(tiny):
    backbone = Backbone(resolve(str(tiny("bert")), dtype="float32"))
    assert backbone.embed(backbone.tokeniser([])).shape == (0, 1, 32)
    assert np.isfinite(backbone.embed(backbone.tokeniser([""]))).all()


def test_padding_is_counted_and_a_packed_batch_has_none(tiny):
    spec = resolve(str(tiny("bert")), dtype="float32")
    padded, packed = Backbone(spec, reference=True), Backbone(spec)
    tokens = padded.tokeniser(TEXTS)
    padded.embed(tokens)
    packed.embed(tokens)
    positions = tokens.window_lengths.max() * len(TEXTS)
    assert padded.work.tokens == packed.work.tokens == packed.work.positions == tokens.ids.size
    assert padded.work.positions == positions
    assert padded.work.padding == pytest.approx(1 - tokens.ids.size / positions)
    assert packed.work.padding == 0


def test_a_pooler_that_the_checkpoint_lacks_is_refused(tiny, tmp_path):
    AutoModel.from_pretrained(tiny("bert"), add_pooling_layer=False).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="no pooler"):
        Backbone(resolve(str(tmp_path), reads="pooler"))
    Backbone(resolve(str(tmp_path), reads="cls:1"))


def test_weights_that_changed_since_are_refused(tiny, tmp_path):
    folder = tmp_path / "model"
    AutoModel.from_pretrained(tiny("bert")).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(folder)
    spec = resolve(str(folder))
    other = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(folder)
    with pytest.raises(ModelError, match="changed or damaged"):
        Backbone(spec)


def test_a_configuration_that_changed_since_is_refused(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny("bert"), folder)
    spec = resolve(str(folder))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "transformers_version": "0", "_name_or_path": "x"}))
    assert resolve(str(folder)).fingerprint() == spec.fingerprint()
    Backbone(spec)
    path.write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert resolve(str(folder)).fingerprint() != spec.fingerprint()
    with pytest.raises(ModelError, match=r"the configuration of .* changed or damaged"):
        Backbone(spec)


def test_bfloat16_is_refused_where_it_would_be_emulated(monkeypatch):
    check_dtype("bfloat16", "bfloat16", what="bert")
    check_dtype("float32", "float32", what="bert")
    with pytest.raises(ModelError, match="set dtype to float32 for the whole run, or LLMEMBED_EM"):
        check_dtype("bfloat16", "float32", what="bert")
    check_dtype("bfloat16", "float32", what="bert", emulate=True)
    monkeypatch.setenv("LLMEMBED_EMULATE_BF16", "1")
    check_dtype("bfloat16", "float32", what="bert")
    with pytest.raises(ModelError):
        check_dtype("bfloat16", "float32", what="bert", emulate=False)


def save_other(kind: str, folder: Path) -> Path:
    """Models whose insides are not laid out as most are."""
    torch.manual_seed(0)
    shape = {"vocab_size": 400, "init_std": 0.2, "embed_init_std": 0.2}
    sizes = {"emb_dim": 32, "n_layers": LAYERS, "n_heads": 4, "max_position_embeddings": 128}
    words = {"pad_index": 0, "bos_index": 2, "eos_index": 3, "unk_index": 1, "mask_index": 4}
    if kind == "xlm":
        model = XLMModel(XLMConfig(**shape, **sizes, **words))
    elif kind == "flaubert":
        # Without a mask it takes tokens of this id for padding.
        model = FlaubertModel(FlaubertConfig(**shape, **sizes, **words, pad_token_id=0))
    else:
        model = DebertaV2Model(
            DebertaV2Config(
                vocab_size=400,
                hidden_size=32,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=128,
                initializer_range=0.2,
                relative_attention=True,
                pos_att_type=["p2c", "c2p"],
            )
        )
    model.save_pretrained(folder)
    save_tokenizer(folder, "bert")
    return folder


@pytest.mark.parametrize("kind", ["xlm", "flaubert", "deberta"])
def test_models_laid_out_otherwise(kind, tmp_path):
    folder = save_other(kind, tmp_path / kind)
    spec = resolve(str(folder), reads="mean:1-5 cls:1-2", dtype="float32")
    assert spec.attention == "eager"
    backbone = Backbone(spec, token_budget=128)
    found = backbone.embed(backbone.tokeniser(TEXTS))
    assert off(found, plain(folder, TEXTS, "mean:1-5 cls:1-2")) < 1e-5
    if kind != "deberta":
        with pytest.raises(UnsupportedError, match="leave post_norm on"):
            Backbone(resolve(str(folder), dtype="float32", post_norm=False))


def test_a_padding_token_in_the_text_itself(tiny):
    # RoBERTa's positions skip it; a packed row must do the same.
    spec = resolve(str(tiny("roberta")), dtype="float32")
    texts = ["oil <pad> price", "grain exports fell <pad>", *TEXTS[:2]]
    ours = Backbone(spec)
    assert off(ours.embed(ours.tokeniser(texts)), plain(tiny("roberta"), texts, "mean:1")) < 1e-5


def test_a_read_is_named_as_it_is_written():
    assert str(Read(depth=3, pooling="mean")) == "mean:3"
