"""Encoded texts with their labels, and the padded batches made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from llmembed.contract import Examples, Task

NO_LABEL = -100
"""Where a token bears no label: torch's cross-entropy passes over it."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N encoded texts. ``labels``: name -> one entry for each row: an integer, a bool array (C,),
    or int64 (T,) aligned with the row's ids."""

    ids: Sequence[Sequence[int]]
    labels: Mapping[str, Sequence[Any]]
    pad: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self.ids], dtype=np.int64)

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` int64 (B, T), and ``labels/NAME`` of each task."""
        longest = max(len(self.ids[row]) for row in rows)
        found = {
            "input_ids": torch.full((len(rows), longest), self.pad, dtype=torch.long),
            "attention_mask": torch.zeros((len(rows), longest), dtype=torch.long),
        }
        for place, row in enumerate(rows):
            ids = self.ids[row]
            found["input_ids"][place, : len(ids)] = torch.tensor(ids)
            found["attention_mask"][place, : len(ids)] = 1
        for name, labels in self.labels.items():
            found[f"labels/{name}"] = _padded([labels[row] for row in rows], longest)
        return found


def _padded(labels: Sequence[Any], longest: int) -> torch.Tensor:
    first = np.asarray(labels[0])
    if first.ndim == 0:
        return torch.tensor([int(label) for label in labels])
    if first.dtype == bool:
        return torch.tensor(np.stack(labels)).float()
    padded = torch.full((len(labels), longest), NO_LABEL, dtype=torch.long)
    for place, label in enumerate(labels):
        padded[place, : len(label)] = torch.as_tensor(label)
    return padded


def encode_texts(
    tokeniser: Any, texts: Sequence[str], max_tokens: int, *, words: bool = False
) -> tuple[list[list[int]], list[np.ndarray]]:
    """Token ids of each text, cut at ``max_tokens``, and with ``words`` where the first sub-word
    of each word (split at white space) is, int64 (words,), -1 for a word that was cut off."""
    if not texts:
        return [], []
    encoded = tokeniser(
        list(texts), truncation=True, max_length=max_tokens, return_offsets_mapping=words
    )
    ids = [list(row) for row in encoded["input_ids"]]
    if not words:
        return ids, []
    spans = encoded["offset_mapping"]
    return ids, [_first_places(text, row) for text, row in zip(texts, spans, strict=True)]


def _first_places(text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The token at which each word of ``text`` begins; ``spans``: characters of each token."""
    starts = np.array([found.start() for found in re.finditer(r"\S+", text)], dtype=np.int64)
    first = np.full(len(starts), -1, dtype=np.int64)
    for place, (begin, end) in enumerate(spans):
        while begin < end and text[begin].isspace():  # some count the space before as theirs
            begin += 1
        if begin < end:
            word = int(np.searchsorted(starts, begin, side="right")) - 1
            if first[word] < 0:
                first[word] = place
    return first


def encode_examples(
    tokeniser: Any, tasks: Sequence[Task], examples: Examples, max_tokens: int
) -> Rows:
    """The rows of ``examples``, a tag on the first sub-word of its word and nowhere else."""
    tagged = any(task.kind == "tokens" for task in tasks)
    ids, starts = encode_texts(tokeniser, texts_of(examples), max_tokens, words=tagged)
    labels: dict[str, Sequence[Any]] = {}
    offsets = examples.offsets if tagged else None
    for task in tasks:
        values = examples.labels[task.name]
        if task.kind != "tokens":
            labels[task.name] = list(values)
            continue
        assert offsets is not None
        aligned = []
        for row, first in enumerate(starts):
            tags = np.full(len(ids[row]), NO_LABEL, dtype=np.int64)
            own = values[offsets[row] : offsets[row + 1]]
            tags[first[first >= 0]] = own[first >= 0]
            aligned.append(tags)
        labels[task.name] = aligned
    return Rows(ids=ids, labels=labels, pad=pad_of(tokeniser))


def texts_of(examples: Examples) -> list[str]:
    """The texts; where words are given, these joined by single spaces."""
    if examples.words is None:
        return list(examples.texts)
    return [" ".join(words) for words in examples.words]


def pad_of(tokeniser: Any) -> int:
    """The id that fills up rows; masked, so any will do where a model has none."""
    found = tokeniser.pad_token_id
    return int(found if found is not None else tokeniser.eos_token_id or 0)
