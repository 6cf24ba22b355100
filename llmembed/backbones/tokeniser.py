"""Texts -> token ids in windows that fit the model; CPU work of its own, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.backbones import weights
from llmembed.backbones.folder_checks import read_tokenizer
from llmembed.backbones.resolving import check_weights
from llmembed.backbones.spec import BackboneSpec
from llmembed.errors import ModelError

PROBE = (2, 21)
"""Tokens of the two rows by which a backbone is tried, special ones aside."""

HEAD_SHARE = 0.25
"""Of a long text's tokens under ``head_tail``, as in Sun et al. 2019 (128 of 510)."""


@dataclass(frozen=True, kw_only=True)
class TokenisedBatch:
    """Token ids of N texts in W ≥ N windows, flat.

    ``ids`` int32 (tokens of all windows,), window w at ``ids[window_starts[w]:window_starts[w+1]]``
    with ``window_starts`` int64 (W + 1,); text n has the windows ``text_starts[n]`` up to
    ``text_starts[n + 1]``, int64 (N + 1,). ``kept`` and ``full`` int64 (N,): how many of each
    text's tokens are read, and how many it has.
    """

    ids: npt.NDArray[np.int32]
    window_starts: npt.NDArray[np.int64]
    text_starts: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    full: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.full)

    @property
    def window_lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.window_starts)

    def window(self, place: int) -> npt.NDArray[np.int32]:
        """The ids of one window."""
        return self.ids[self.window_starts[place] : self.window_starts[place + 1]]

    @classmethod
    def of_windows(
        cls,
        windows: Sequence[Sequence[Sequence[int]]],
        kept: Sequence[int],
        full: Sequence[int],
    ) -> TokenisedBatch:
        """From lists: the windows of each text, each a list of ids."""
        flat = [window for text in windows for window in text]
        lengths = [len(window) for window in flat]
        ids = np.fromiter((i for window in flat for i in window), np.int32, count=sum(lengths))
        return cls(
            ids=ids,
            window_starts=_starts(lengths),
            text_starts=_starts([len(text) for text in windows]),
            kept=np.asarray(kept, dtype=np.int64),
            full=np.asarray(full, dtype=np.int64),
        )

    @classmethod
    def joined(cls, batches: Sequence[TokenisedBatch]) -> TokenisedBatch:
        """The texts of several batches, one after the other."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            ids=np.concatenate([batch.ids for batch in batches]),
            window_starts=_starts(np.concatenate([batch.window_lengths for batch in batches])),
            text_starts=_starts(np.concatenate([np.diff(b.text_starts) for b in batches])),
            kept=np.concatenate([batch.kept for batch in batches]),
            full=np.concatenate([batch.full for batch in batches]),
        )

    def to_arrow(self) -> dict[str, Any]:
        """Columns of N rows: ``ids`` list<list<int32>>, ``kept`` and ``full`` int64."""
        import pyarrow as pa

        windows = pa.LargeListArray.from_arrays(
            pa.array(self.window_starts), pa.array(self.ids, pa.int32())
        )
        return {
            "ids": pa.LargeListArray.from_arrays(pa.array(self.text_starts), windows),
            "kept": pa.array(self.kept),
            "full": pa.array(self.full),
        }

    @classmethod
    def from_arrow(cls, table: Any) -> TokenisedBatch:
        """From a ``pa.Table`` or ``RecordBatch`` with the columns of ``to_arrow``."""
        import pyarrow as pa

        texts = table["ids"]
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        if isinstance(texts, pa.ChunkedArray):  # a table without rows has no chunk to combine
            texts = pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], texts.type)
        windows = texts.flatten()
        return cls(
            ids=windows.flatten().to_numpy(zero_copy_only=False).astype(np.int32, copy=False),
            window_starts=_starts(_list_lengths(windows)),
            text_starts=_starts(_list_lengths(texts)),
            kept=table["kept"].to_numpy().astype(np.int64, copy=False),
            full=table["full"].to_numpy().astype(np.int64, copy=False),
        )


def _list_lengths(lists: Any) -> npt.NDArray[np.int64]:
    import pyarrow.compute as pc

    lengths: npt.NDArray[np.int64] = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return lengths


def _starts(lengths: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


class Tokeniser:
    """Calls the model's own tokenizer and applies the spec's template and rule for long texts.

    Special tokens and the template stay whole; what is cut or windowed is the text between them.
    Raises ``ModelError`` when the tokenizer can't be loaded or is not the one of the spec.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        self.spec = spec
        self.tokenizer = load_tokenizer(spec)
        # Where a model has no padding token any id will do: the mask hides it.
        self.pad_id = int(self.tokenizer.pad_token_id or 0)
        before, after = (spec.template or "{text}").split("{text}")
        self._before, self._after = before, after
        mask = self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        head = next((i for i, special in enumerate(mask) if not special), len(mask))
        tail = next((i for i, special in enumerate(reversed(mask)) if not special), 0)
        self.special_head, self.special_tail = head, tail
        self._head = head + self._count(before)
        self._tail = tail + self._count(after)
        # Tokens of a row before and after the text's own.
        self.around = self._head, self._tail
        if spec.max_tokens <= self._head + self._tail:
            raise ModelError(
                f"the template alone fills {self._head + self._tail} of {spec.max_tokens} tokens"
            )

    def probe(self, rows: int | None = None) -> TokenisedBatch:
        """Two rows of unlike length, of ordinary tokens from all over the vocabulary below ``rows``
        between the special ones, whatever the language: what every backbone is tried on."""
        special = set(self.tokenizer.all_special_ids)
        ids = sorted({*self.tokenizer.get_vocab().values()} - special)
        ids = [place for place in ids if rows is None or place < rows]
        around = list(self.tokenizer("a")["input_ids"])
        tail = around[len(around) - self.special_tail :]
        most = self.spec.max_tokens - self.special_head - self.special_tail
        windows = []
        for count in (min(PROBE[0], most), min(PROBE[1], most)):
            chosen = [ids[int(i)] for i in np.linspace(0, len(ids) - 1, count)]
            windows.append([[*around[: self.special_head], *chosen[::-1], *tail]])
        counts = [len(window[0]) for window in windows]
        return TokenisedBatch.of_windows(windows, counts, counts)

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0

    def __call__(self, texts: Sequence[str]) -> TokenisedBatch:
        if not len(texts):
            return TokenisedBatch.of_windows([], [], [])
        wrapped = [f"{self._before}{text}{self._after}" for text in texts]
        # Where tokens join at the template's edges, counting its pieces alone would be off by one.
        placed = bool(self.spec.template) and bool(getattr(self.tokenizer, "is_fast", False))
        encoded = self.tokenizer(
            wrapped,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_offsets_mapping=placed,
            verbose=False,
        )
        rows = encoded["input_ids"]
        if placed:
            edges = [
                self._edges(offsets, len(self._before), len(whole) - len(self._after))
                for offsets, whole in zip(encoded["offset_mapping"], wrapped, strict=True)
            ]
            windows = [self._windows(ids, *ends) for ids, ends in zip(rows, edges, strict=True)]
        else:
            windows = [self._windows(ids, self._head, self._tail) for ids in rows]
        full = [len(ids) for ids in rows]
        if self.spec.long_texts == "windows":
            kept = full
        else:
            kept = [min(n, self.spec.max_tokens) for n in full]
        return TokenisedBatch.of_windows(windows, kept, full)

    def _edges(self, offsets: list[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
        """Tokens at each side that are special or hold a character of the template; the text
        stands from character ``start`` to ``end``. Few texts are long enough to need it."""
        if len(offsets) <= self.spec.max_tokens:
            return self._head, self._tail
        head, last = self.special_head, len(offsets) - self.special_tail
        while head < last and offsets[head][0] < start:
            head += 1
        tail = last
        while tail > head and offsets[tail - 1][1] > end:
            tail -= 1
        if head + len(offsets) - tail >= self.spec.max_tokens:
            return self._head, self._tail
        return head, len(offsets) - tail

    def _windows(self, ids: list[int], at_head: int, at_tail: int) -> list[list[int]]:
        limit = self.spec.max_tokens
        if len(ids) <= limit:
            return [ids]
        end = len(ids) - at_tail
        head, body, tail = ids[:at_head], ids[at_head:end], ids[end:]
        room = limit - len(head) - len(tail)
        if self.spec.long_texts == "windows":
            return [[*head, *body[i : i + room], *tail] for i in range(0, len(body), room)]
        if self.spec.long_texts == "head_tail":
            first = round(room * HEAD_SHARE)
            return [[*head, *body[:first], *body[len(body) - (room - first) :], *tail]]
        return [[*head, *body[:room], *tail]]


def load_tokenizer(spec: BackboneSpec) -> Any:
    """The Hugging Face tokenizer of ``spec``, checked against its digest."""
    folder = weights.needed_folder(spec.location, spec.weights_sha256)
    if folder is not None:
        check_weights(
            f"{spec.location}'s tokenizer", spec.tokenizer_digest, weights.tokenizer_sha256(folder)
        )
    return read_tokenizer(
        str(folder or spec.location),
        revision=None if folder else spec.revision,
        trust_remote_code=spec.trust_remote_code,
    )
