"""Cutting work into blocks."""

from __future__ import annotations

import numpy as np
import pytest

from llmembed.embeddings.blocks import BLOCK_CHARACTERS, SMALLEST_ROWS, cut, table_of, weights_of
from llmembed.embeddings.keys import keys_of


@pytest.mark.parametrize("count", [1, 63, 65, 1000, 20_000])
@pytest.mark.parametrize("rows", [16, 1024])
def test_blocks_cover_all_rows_once_and_end_small(count: int, rows: int) -> None:
    weights = np.sort(np.random.default_rng(0).integers(10, 4000, count))[::-1]
    pieces = list(cut(weights, rows=rows))
    assert [i for p in pieces for i in range(p.start, p.stop)] == list(range(count))
    sizes = [p.stop - p.start for p in pieces]
    assert max(sizes) <= rows
    if count >= 1000:
        work = [int(weights[p].sum()) for p in pieces]
        # The last block decides how long the others wait for the last worker.
        assert work[-1] <= sum(work) / 20
        assert all(size >= min(SMALLEST_ROWS, rows) for size in sizes[:-1])


def test_texts_of_any_length_make_blocks_of_bounded_work() -> None:
    weights = np.array([9, 3, 2, 1, *[0.01] * 500]) * BLOCK_CHARACTERS / 2
    pieces = list(cut(weights.astype(np.int64), rows=1024))
    assert [i for p in pieces for i in range(p.start, p.stop)] == list(range(len(weights)))
    assert pieces[0] == slice(0, 1) and pieces[1] == slice(1, 2)
    assert all(weights[p].sum() <= BLOCK_CHARACTERS for p in pieces[2:])


def test_a_cut_text_weighs_no_more_than_what_is_read_of_it() -> None:
    texts = ["a" * 10, "a" * 100_000, "a" * 200_000]
    cut_weights = weights_of(texts, max_tokens=50)
    assert cut_weights[1] == cut_weights[2] > cut_weights[0]
    assert (np.diff(weights_of(texts, max_tokens=None)) > 0).all()


def test_the_table_holds_each_text_under_its_key_longest_first() -> None:
    texts = ["a" * (i % 17 + 1) + str(i) for i in range(300)]
    chosen = np.arange(0, 300, 2)
    table = table_of(keys_of(texts), texts, chosen, max_tokens=None, rows=32)
    got = table.column("text").to_pylist()
    assert sorted(got) == sorted(texts[i] for i in chosen)
    assert [len(t) for t in got] == sorted((len(t) for t in got), reverse=True)
    assert b"".join(table.column("key").to_pylist()) == keys_of(got).tobytes()
    assert max(len(chunk) for chunk in table.column("text").chunks) <= 32
