"""What a model's files must hold before anything is computed with them.

One place for all who load models: frozen backbones, fine-tuning, and models that write. Libraries
make up what is missing (a tokenizer that knows no word) or fail far from the cause.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmembed.backbones import weights
from llmembed.errors import ModelError, UserError

_POINTER = b"version https://git-lfs"
_LONGEST_POINTER = 1024
# Besides weights and tokenizer; all of them JSON.
_OTHERS = ("config.json", "generation_config.json", "modules.json", weights.INDEX)
# What may hold a vocabulary. tokenizer_config.json alone is enough for tokenizers of bytes.
_VOCABULARIES = ("tokenizer*", "vocab*", "*.model", "*.spm", "*.tiktoken", "tekken.json", "bpe.*")
_HEADER_AT_MOST = 100_000_000  # bytes; safetensors' own limit


def check_files(folder: Path) -> None:
    """Raise ``ModelError`` where a file that is read is a Git LFS pointer, empty or cut off, or
    where there is no tokenizer. A folder without a ``config.json`` is left to who reads that."""
    if not (folder / "config.json").is_file():
        return
    for name in _OTHERS:
        if (folder / name).is_file():
            _check_is_file(folder / name)
    for path in weights.weight_files(folder):
        if path.is_file():
            _check_is_file(path)
            _check_whole(path)
    _check_tokenizer_files(folder)


def _check_tokenizer_files(folder: Path) -> None:
    for name in weights.TOKENIZER_FILES:
        if (folder / name).is_file():
            _check_is_file(folder / name)
    if not any(path.is_file() for name in _VOCABULARIES for path in folder.glob(name)):
        raise ModelError(
            f"{folder} holds no tokenizer file (tokenizer.json, vocab.txt, tokenizer.model or the "
            "like): put the files of the model's tokenizer beside its weights"
        )


def _check_is_file(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise ModelError(f"{path} is empty: fetch the model's files again")
    if size <= _LONGEST_POINTER:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
        if pointer:
            raise ModelError(
                f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in "
                f"{path.parent}"
            )


def _check_whole(path: Path) -> None:
    """By the header of a safetensors file, which says where each weight ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= min(size, _HEADER_AT_MOST) else b""
    try:
        told = json.loads(header)
        ends = [each["data_offsets"][1] for key, each in told.items() if key != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ModelError(
            f"{path} is no whole safetensors file ({size:,} bytes): fetch it again"
        ) from None
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise ModelError(f"{path} is not whole, {size:,} bytes of {whole:,}: fetch it again")


@contextmanager
def loading(location: str, what: str = "can't be loaded from safetensors") -> Iterator[None]:
    """Whatever is wrong with the files of ``location`` as one ``ModelError``; the libraries raise
    errors of many kinds, bare ``Exception`` among them."""
    from llmembed.backbones.batching import is_out_of_memory

    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ModelError(f"{location} {what}: {reason}") from error


def read_tokenizer(
    location: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """The Hugging Face tokenizer of a folder or hub id. Raises ``ModelError`` where it can't be
    read or knows no word."""
    from transformers import AutoTokenizer

    if Path(location).is_dir():
        _check_tokenizer_files(Path(location))
    with loading(f"the tokenizer of {location}", "can't be loaded"):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            location, revision=revision, trust_remote_code=trust_remote_code
        )
    special = set(tokenizer.all_special_ids)
    if not any(place not in special for place in tokenizer.get_vocab().values()):
        raise ModelError(
            f"the tokenizer of {location} knows no word, only special tokens: put the files of the "
            "model's tokenizer (tokenizer.json, vocab.txt or the like) beside its weights"
        )
    return tokenizer


def check_fits(tokenizer: Any, rows: int | None, location: str, *, pads: bool = False) -> None:
    """Raise ``ModelError`` where a text may hold a token beyond the ``rows`` of the embedding
    table; None where they can't be told. ``pads``: whether rows are filled up with the padding
    token, so that it needs a row too.

    Special tokens beyond it that no text gets by itself are let pass: Gemma 3's tokenizer has one
    for images, its models of text have not.
    """
    if rows is None:
        return
    beyond = {place: token for token, place in tokenizer.get_vocab().items() if place >= rows}
    if not beyond:
        return
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    harmless = special - {*tokenizer("a")["input_ids"], *([tokenizer.pad_token_id] if pads else [])}
    met = sorted(set(beyond) - harmless)
    if met:
        raise ModelError(
            f"the tokenizer of {location} has {len(met)} tokens beyond the model's {rows:,} "
            f"embeddings, such as {beyond[met[-1]]!r} ({met[-1]}): save the model again after "
            "`resize_token_embeddings`, or take the tokenizer that its weights were trained with"
        )


def embedding_rows(model: Any) -> int | None:
    """The rows of a loaded model's table of token embeddings; None where it has no such table."""
    try:
        table = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return getattr(table, "num_embeddings", None)


@lru_cache(maxsize=32)
def check_tokenizer(
    location: str,
    revision: str | None,
    rows: int | None,
    *,
    digest: str,
    trust_remote_code: bool = False,
    pads: bool = False,
) -> None:
    """``read_tokenizer`` and ``check_fits``, once a process for files of the same ``digest``."""
    tokenizer = read_tokenizer(location, revision=revision, trust_remote_code=trust_remote_code)
    check_fits(tokenizer, rows, location, pads=pads)


def vocabulary_of(config: Any) -> int | None:
    """The rows of the embedding table that a model's configuration promises."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    return int(size) if isinstance(size, int) and size > 0 else None
