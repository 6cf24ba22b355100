"""A disk that is full, or would be, is one sentence, never the end of the process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_disk import small_disk
from tiny_bert import make_texts

from llmembed.cluster import LocalRuntime
from llmembed.embeddings import Folder, Store, embed
from llmembed.embeddings.gather import digest_of, gather, gathered_bytes
from llmembed.embeddings.keys import distinct, keys_of
from llmembed.embeddings.store import Ledger
from llmembed.errors import StoreError
from llmembed.metering.disk import check_room, free_bytes, room_for

SIZE = 200 * 1024
TEXTS = make_texts(600)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", SIZE) as place:
        yield place


def test_what_does_not_fit_is_said_before_anything_is_computed(small: Path, tiny_spec: Any) -> None:
    row = len(tiny_spec.reads), tiny_spec.width
    wanted = 2 * gathered_bytes(len(TEXTS), *row)  # the parts, and what is gathered of them
    assert wanted > SIZE
    with pytest.raises(StoreError, match=rf"takes {wanted:,} bytes in .* free: free some"):
        embed(tiny_spec, TEXTS, LocalRuntime(small))
    assert not Store(small, tiny_spec).parts()


def test_a_disk_that_fills_up_meanwhile(small: Path, tiny_spec: Any) -> None:
    """Parts are there, and room is taken away: gathering them would be the end (SIGBUS)."""
    texts = TEXTS[:200]
    embed(tiny_spec, texts, LocalRuntime(small), keep=False)
    store = Store(small, tiny_spec)
    keys = keys_of(texts)
    unique, _, place = distinct(keys, shard_rows=1000)
    ledger = Ledger(keys=unique)
    ledger.look(store)
    (small / "filler").write_bytes(bytes(free_bytes(small) - 8192))
    with pytest.raises(StoreError, match="gathering 200 texts takes"):
        gather(store, ledger, place, digest_of(keys), keep=True)
    assert not list(store.gathered_folder().glob("*/vectors.npy"))
    with pytest.raises(StoreError, match="the file part takes 9,000 bytes"):
        Folder(str(small)).write("part", bytes(9000))
    assert not list(small.glob(".writing-*"))
    (small / "filler").unlink()
    got = gather(store, ledger, place, digest_of(keys), keep=True)
    assert np.isfinite(got.vectors).all()


def test_a_disk_that_is_full_while_it_is_written(small: Path) -> None:
    with (
        pytest.raises(StoreError, match="a checkpoint takes 1 bytes"),
        room_for(small, 1, "a checkpoint"),
    ):
        (small / "checkpoint").write_bytes(bytes(2 * SIZE))


def test_any_disk_is_too_small_for_some_array(tmp_path: Path, tiny_spec: Any) -> None:
    huge = free_bytes(tmp_path) + 2**50
    with pytest.raises(StoreError, match=f"an array takes {huge:,} bytes"):
        check_room(tmp_path / "not" / "there", huge, "an array")
    wide = replace(tiny_spec, width=2**50)
    with pytest.raises(StoreError, match="embedding 2 texts takes"):
        embed(wide, TEXTS[:2], LocalRuntime(tmp_path))
    with pytest.raises(ZeroDivisionError), room_for(tmp_path, 1, "nothing"):
        raise ZeroDivisionError  # other errors stay what they are


def test_what_torch_and_safetensors_say_of_a_full_disk(small: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {"weight": torch.zeros(SIZE)}  # four bytes each
    for save in (
        lambda: save_file(weights, small / "model.safetensors"),
        lambda: torch.save(weights, small / "optimizer.pt"),
    ):
        with pytest.raises(StoreError, match="the model takes"), room_for(small, 1, "the model"):
            save()
        for file in small.iterdir():
            file.unlink()
