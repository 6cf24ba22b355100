"""Folders that are no whole model: refused in one sentence when they are named, in every room."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoTokenizer

from llmembed.backbones import Backbone, resolve
from llmembed.errors import LlmembedError, ModelError
from llmembed.finetuning.places import source_of
from llmembed.generation.local_spec import pin

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
WEIGHTS = "model.safetensors"


def generates(folder: str) -> object:
    return pin(
        folder, revision=None, dtype="float32", device="cpu", batch_tokens=64, share_prefix=True
    )


# Where a model is named before any worker starts: to be read, to be trained, to write.
ROOMS: dict[str, Callable[[str], object]] = {
    "backbones": resolve,
    "finetuning": lambda folder: source_of(folder, causal=True),
    "generation": generates,
}


def refused(folder: Path, room: str) -> str:
    with pytest.raises(ModelError) as error:
        ROOMS[room](str(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def llama(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny("llama"), tmp_path / "llama"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_whole_folder_is_taken(llama, room):
    assert ROOMS[room](str(llama))


@pytest.mark.parametrize("room", ROOMS)
def test_no_tokenizer_files(llama, room):
    for file in llama.glob("*token*"):
        file.unlink()
    assert f"{llama} holds no tokenizer file" in refused(llama, room)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named(llama, room, name):
    (llama / name).write_text(POINTER)
    assert f"{llama / name} is a Git LFS pointer" in refused(llama, room)
    assert "git lfs pull" in refused(llama, room)


@pytest.mark.parametrize("room", ROOMS)
def test_weights_that_were_cut_off(llama, room):
    content = (llama / WEIGHTS).read_bytes()
    (llama / WEIGHTS).write_bytes(content[:-2000])
    said = f"is not whole, {len(content) - 2000:,} bytes of {len(content):,}"
    assert said in refused(llama, room)
    (llama / WEIGHTS).write_bytes(content[:100])
    assert "is no whole safetensors file (100 bytes)" in refused(llama, room)
    (llama / WEIGHTS).write_bytes(b"")
    assert "is empty" in refused(llama, room)


def test_a_pointer_among_several_weight_files(llama):
    weights = load_file(llama / WEIGHTS)
    names = {key: f"part-{i % 2}.safetensors" for i, key in enumerate(weights)}
    for part in set(names.values()):
        save_file({k: v for k, v in weights.items() if names[k] == part}, llama / part)
    (llama / WEIGHTS).unlink()
    (llama / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": names}))
    assert resolve(str(llama))
    (llama / "part-1.safetensors").write_text(POINTER)
    assert "part-1.safetensors is a Git LFS pointer" in refused(llama, "backbones")
    (llama / "part-1.safetensors").unlink()
    assert "lacks part-1.safetensors" in refused(llama, "backbones")


def test_files_that_nobody_reads_may_be_anything(llama):
    (llama / "pytorch_model.bin").write_text(POINTER)
    (llama / "onnx").mkdir()
    (llama / "onnx" / "model.onnx").write_text(POINTER)
    assert Backbone(resolve(str(llama), dtype="float32"))


def with_tokens(folder: Path, tokens: list[str], *, special: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(token, special=special) for token in tokens])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("room", ROOMS)
def test_tokens_beyond_the_embeddings(llama, room):
    with_tokens(llama, ["newword", "otherword"], special=False)
    rows = json.loads((llama / "config.json").read_text())["vocab_size"]
    size = len(AutoTokenizer.from_pretrained(llama))
    if size <= rows:  # the table has rows to spare
        with_tokens(llama, [f"word{i}" for i in range(rows - size + 2)], special=False)
    said = refused(llama, room)
    assert f"tokens beyond the model's {rows} embeddings" in said
    assert "resize_token_embeddings" in said


def test_a_special_token_beyond_the_embeddings_is_met_in_its_text_alone(llama):
    """Gemma 3's tokenizer has one for images, which its models of text have no row for."""
    rows = json.loads((llama / "config.json").read_text())["vocab_size"]
    size = len(AutoTokenizer.from_pretrained(llama))
    with_tokens(llama, [f"<spare{i}>" for i in range(rows - size)] + ["<image>"], special=True)
    backbone = Backbone(resolve(str(llama), dtype="float32"))
    tokens = backbone.tokeniser(["the oil price", "the <image> price", "grain exports fell"])
    assert int(tokens.ids.max()) == rows
    found = backbone.embed(tokens)
    plain = Backbone(resolve(str(llama), dtype="float32"))
    wanted = plain.embed(plain.tokeniser(["the oil price", "grain exports fell"]))
    assert abs(found[[0, 2]] - wanted).max() < 1e-5
    assert np.isnan(found[1]).all()


def test_a_tokenizer_of_special_tokens_alone(tiny, tmp_path):
    """What libraries make of a folder that names a tokenizer without having it."""
    folder = Path(shutil.copytree(tiny("roberta"), tmp_path / "roberta"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    with pytest.raises(LlmembedError) as error:
        resolve(str(folder))
    assert "knows no word, only special tokens" in str(error.value)
