"""The folder of one spec: what it is called, what it refuses, what it finds."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmembed.contract import Usage
from llmembed.embeddings.folder import Folder
from llmembed.embeddings.keys import distinct, keys_of
from llmembed.embeddings.parts import Part
from llmembed.embeddings.store import Ledger, Store
from llmembed.errors import StoreError


def some_part(spec: Any, texts: list[str]) -> Part:
    size = len(spec.reads) * spec.width
    return Part(
        keys=keys_of(texts),
        tokens=np.full(len(texts), 3, dtype=np.int32),
        full_tokens=np.full(len(texts), 3, dtype=np.int32),
        vectors=np.ones((len(texts), size), dtype=np.float32),
        usage=Usage(seconds=1.0),
        padding=0,
    )


def test_the_folder_is_named_after_the_spec_and_says_what_it_holds(
    tmp_path: Path, tiny_spec: Any
) -> None:
    store = Store(tmp_path, tiny_spec)
    store.open()
    name = store.add(some_part(tiny_spec, ["a", "b"]))
    label = f"{tiny_spec.label}@{tiny_spec.revision}"
    folder = tmp_path / "store" / label / tiny_spec.fingerprint()
    assert sorted(p.name for p in folder.iterdir()) == [name, "spec.json"]
    assert name.startswith("part-00000002-")
    assert json.loads((folder / "spec.json").read_text()) == tiny_spec.to_json()
    Store(tmp_path, replace(tiny_spec, location="/elsewhere")).open()


def test_a_folder_made_with_another_spec_raises(tmp_path: Path, tiny_spec: Any) -> None:
    store = Store(tmp_path, tiny_spec)
    store.open()
    path = Path(store.folder.address) / "spec.json"
    path.write_text(json.dumps({**tiny_spec.to_json(), "max_tokens": 7, "dtype": "bfloat16"}))
    with pytest.raises(StoreError, match=r"dtype is 'bfloat16' there .*also max_tokens"):
        store.open()
    path.write_text("{")
    with pytest.raises(StoreError, match="not JSON"):
        store.open()


def test_parts_without_a_spec_raise(tmp_path: Path, tiny_spec: Any) -> None:
    store = Store(tmp_path, tiny_spec)
    store.add(some_part(tiny_spec, ["a"]))
    with pytest.raises(StoreError, match=r"no spec\.json"):
        store.open()


def test_files_still_being_written_are_no_parts_and_old_ones_are_swept(
    tmp_path: Path, tiny_spec: Any
) -> None:
    store = Store(tmp_path, tiny_spec)
    store.open()
    name = store.add(some_part(tiny_spec, ["a"]))
    folder = Path(store.folder.address)
    young, old = folder / f".writing-{name}-1", folder / f".writing-{name}-2"
    for aside in (young, old):
        aside.write_bytes(b"PAR1 half a part")
    long_ago = (time.time() - 7200, time.time() - 7200)
    os.utime(old, long_ago)
    assert store.parts() == [name]
    store.open()
    assert young.exists() and not old.exists()

    # An array that a killed process was gathering; another is gathering still.
    killed, busy = (store.gathered_folder() / f".writing-{n}" for n in "ab")
    for aside in (killed, busy):
        aside.mkdir(parents=True)
        (aside / "vectors.npy").write_bytes(b"half an array")
        os.utime(aside, long_ago)
    os.utime(killed / "vectors.npy", long_ago)
    Folder(str(store.gathered_folder())).sweep()
    assert busy.exists() and not killed.exists()


def test_a_file_that_cannot_be_read_is_no_damaged_part(tmp_path: Path, tiny_spec: Any) -> None:
    store = Store(tmp_path, tiny_spec)
    store.open()
    name = store.add(some_part(tiny_spec, ["a"]))
    path = Path(store.folder.address) / name
    path.unlink()
    path.mkdir()
    for read in (store.head, store.read):
        with pytest.raises(StoreError, match="can't be read"):
            read(name)
    assert path.exists() and not (path.parent / "damaged").exists()


def test_the_ledger_finds_keys_counts_doubled_ones_once_and_sets_damage_aside(
    tmp_path: Path, tiny_spec: Any
) -> None:
    store = Store(tmp_path, tiny_spec)
    store.open()
    wanted, first, _ = distinct(keys_of(["a", "b", "c", "d"]), shard_rows=2)
    texts = [["a", "b", "c", "d"][i] for i in first]
    one = store.add(some_part(tiny_spec, ["x", "b", "a"]))
    two = store.add(some_part(tiny_spec, ["b", "c"]))
    ledger = Ledger(keys=wanted)
    assert ledger.look(store) == []
    assert [texts[i] for i in ledger.missing] == ["d"]
    held = {
        text: (ledger.names[part], int(row))
        for text, part, row in zip(texts, ledger.part, ledger.row, strict=True)
        if part >= 0
    }
    assert held["a"] == (one, 2) and held["c"] == (two, 1)
    assert held["b"] in ((one, 1), (two, 0))

    path = Path(store.folder.address) / two
    path.write_bytes(path.read_bytes()[:100])
    again = Ledger(keys=wanted)
    assert again.look(store) == [two]
    assert sorted(texts[i] for i in again.missing) == ["c", "d"]
    assert store.parts() == [one]
    assert (path.parent / "damaged" / two).exists()
