"""What a sentence-transformers folder says of its pooling, prompt, length and unit length holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import make_text
from transformers import AutoModel, AutoTokenizer

from llmembed.backbones import Backbone, how_read, own_reads, parse_reads, poolings_of, resolve
from llmembed.backbones.declared import declared
from llmembed.errors import ConfigError, ModelError
from llmembed.finetuning.places import source_of

TEXTS = [make_text(n, seed) for seed, n in enumerate([3, 40, 11])]
PROMPTS = {"query": "oil price: ", "document": ""}


def save_sentence_transformer(
    folder: Path,
    transformer: Path,
    *,
    inside: str = "",
    pooling: dict[str, Any] | None = None,
    more: tuple[str, ...] = ("Normalize",),
    prompts: dict[str, str] | None = None,
    default: str | None = None,
    max_tokens: int = 16,
) -> Path:
    """A folder as ``SentenceTransformer.save`` lays it out; ``more``: steps after the pooling."""
    shutil.copytree(transformer, folder / inside, dirs_exist_ok=True)
    steps = [("Transformer", inside), ("Pooling", "1_Pooling")]
    steps += [(name, f"{place}_{name}") for place, name in enumerate(more, start=2)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(steps)
    ]
    for _, path in steps[1:]:
        (folder / path).mkdir()
    config = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    write(folder / "1_Pooling" / "config.json", config if pooling is None else pooling)
    write(folder / "modules.json", modules)
    lengths = {"max_seq_length": max_tokens, "do_lower_case": False}
    write(folder / inside / "sentence_bert_config.json", lengths)
    named = {"prompts": PROMPTS if prompts is None else prompts, "default_prompt_name": default}
    write(folder / "config_sentence_transformers.json", {"__version__": {}, **named})
    return folder


def write(path: Path, told: Any) -> None:
    path.write_text(json.dumps(told), encoding="utf-8")


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    return save_sentence_transformer(tmp_path / "sentences", tiny("bert"), default="query")


def own(folder: Path, texts: list[str]) -> np.ndarray:
    """[CLS] of prompt and text, cut at 16 tokens, at unit length: float32 (N, D)."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(f"oil price: {text}", truncation=True, max_length=16)["input_ids"]
        with torch.no_grad():
            state = model(torch.tensor([ids])).last_hidden_state[0, 0]
        rows.append((state / state.norm()).numpy())
    return np.stack(rows)


def embedded(spec: Any) -> np.ndarray:
    backbone = Backbone(spec)
    return backbone.embed(backbone.tokeniser(TEXTS))


def test_all_four_are_taken_and_told(folder):
    spec = resolve(str(folder), dtype="float32")
    assert spec.reads == parse_reads("cls:1")
    assert (spec.template, spec.max_tokens, spec.normalise) == ("oil price: {text}", 16, True)
    found = embedded(spec)
    np.testing.assert_allclose(found[:, 0], own(folder, TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    told = how_read(spec, str(folder))
    assert told is not None
    for words in ("pooling cls:1 is read", "unit length", "16 tokens", "'oil price: {text}'"):
        assert words in told
    assert own_reads(str(folder)) == "cls:1"


def test_equals_sentence_transformers(folder):
    library = pytest.importorskip("sentence_transformers", reason="needs the extra `bench`")
    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    found = embedded(resolve(str(folder), dtype="float32"))
    np.testing.assert_allclose(found[:, 0], theirs, atol=1e-5)


def test_what_is_set_goes_before_what_is_declared(folder):
    spec = resolve(
        str(folder),
        dtype="float32",
        reads="mean:1-2",
        max_tokens=32,
        normalise=False,
        template="a {text}",
    )
    assert spec.reads == parse_reads("mean:1-2")
    assert (spec.template, spec.max_tokens, spec.normalise) == ("a {text}", 32, False)
    assert "its pooling cls:1 is not read" in str(how_read(spec, str(folder)))
    unit = resolve(str(folder), dtype="float32", normalise=True)
    plain = resolve(str(folder), dtype="float32", normalise=False)
    assert unit.fingerprint() != plain.fingerprint()


def test_a_prompt_is_chosen_by_its_name(folder, tiny, tmp_path):
    assert resolve(str(folder), prompt="document").template is None
    assert resolve(str(folder), prompt="none").template is None
    assert resolve(str(folder), prompt="query").template == "oil price: {text}"
    with pytest.raises(ConfigError, match="no prompt 'passage', it has query, document, none"):
        resolve(str(folder), prompt="passage")
    with pytest.raises(ConfigError, match="both a template and a prompt"):
        resolve(str(folder), prompt="query", template="{text}")
    with pytest.raises(ConfigError, match="its files name none"):
        resolve(str(tiny("bert")), prompt="query")
    without = save_sentence_transformer(tmp_path / "without", tiny("bert"))
    spec = resolve(str(without))
    assert spec.template is None
    assert "without a prompt (query: set `prompt`)" in str(how_read(spec, str(without)))


def test_the_older_layout(tiny, tmp_path):
    folder = save_sentence_transformer(tmp_path / "old", tiny("bert"), inside="0_Transformer")
    spec = resolve(str(folder), prompt="query", dtype="float32")
    assert (spec.label, spec.reads, spec.max_tokens) == ("old", parse_reads("cls:1"), 16)
    np.testing.assert_allclose(
        embedded(spec)[:, 0], own(folder / "0_Transformer", TEXTS), atol=1e-5
    )
    assert poolings_of(str(folder)) == poolings_of(str(tiny("bert")))
    assert source_of(str(folder)).name == "old"


@pytest.mark.parametrize(
    "pooling, reads, left_out",
    [
        ({"pooling_mode": "lasttoken"}, "last_token:1", ()),
        ({"pooling_mode": ["cls", "mean"]}, "cls:1 mean:1", ()),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean:1", ()),
        ({"pooling_mode_max_tokens": True}, None, ("its pooling 'max'",)),
    ],
)
def test_poolings(tiny, tmp_path, pooling, reads, left_out):
    folder = save_sentence_transformer(tmp_path / "model", tiny("bert"), pooling=pooling)
    found = declared(folder, "model")
    assert (found.reads, found.left_out) == (reads, left_out)
    assert resolve(str(folder)).reads == parse_reads(reads or "mean:1")


def test_steps_that_are_not_done_are_told(tiny, tmp_path):
    folder = save_sentence_transformer(
        tmp_path / "dense", tiny("bert"), more=("Dense", "Normalize")
    )
    spec = resolve(str(folder))
    assert not spec.normalise  # what follows a dense layer is not done to the vector before it
    assert "without its step Dense (2_Dense)" in str(how_read(spec, str(folder)))


def test_prompts_of_model_cards_where_files_name_none(tiny, tmp_path):
    """E5 wants a prompt before every text; its files were written before files could say so."""
    e5 = save_sentence_transformer(tmp_path / "e5-small-v2", tiny("bert"), prompts={})
    assert resolve(str(e5)).template == "query: {text}"
    assert resolve(str(e5), prompt="document").template == "passage: {text}"
    bge = save_sentence_transformer(tmp_path / "bge-small-en-v1.5", tiny("bert"), prompts={})
    assert resolve(str(bge)).template is None
    asked = resolve(str(bge), prompt="query").template
    assert asked == "Represent this sentence for searching relevant passages: {text}"


def test_other_folders_declare_nothing(tiny):
    spec = resolve(str(tiny("bert")))
    assert (spec.reads, spec.normalise, spec.template) == (parse_reads("mean:1"), False, None)
    assert how_read(spec, str(tiny("bert"))) is None
    assert own_reads("roberta-base") == "mean:1"  # a preset is read as its paper does


def test_files_that_can_not_be_read_are_named(folder):
    (folder / "modules.json").write_text("[", encoding="utf-8")
    with pytest.raises(ModelError, match=r"modules\.json can't be read"):
        resolve(str(folder))


def test_a_hub_id_declares_it_too(folder, tmp_path):
    """From the hub's cache on this machine, laid out as the hub's client lays it out."""
    commit = "0" * 40
    place = tmp_path / "hub" / "models--org--sentences"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit, encoding="utf-8")
    program = (
        "from llmembed.backbones import how_read, resolve; s = resolve('org/sentences');"
        "print(s.revision, *s.reads, s.template, s.max_tokens, s.normalise, sep='|');"
        "print(how_read(s, 'org/sentences'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")},
    )
    taken, told = done.stdout.strip().splitlines()[-2:]
    assert taken == f"{commit}|cls:1|oil price: {{text}}|16|True"
    assert told.startswith("sentences is read by what its own files say")
