"""``embed`` in this process, with a real tiny model and a real store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tiny_bert import make_texts

from llmembed.cluster import LocalRuntime
from llmembed.contract import Usage
from llmembed.embeddings import Store, embed
from llmembed.embeddings.gather import digest_of
from llmembed.embeddings.keys import keys_of
from llmembed.embeddings.stages import TOKENISING, loading_of, stages
from llmembed.errors import DataError, StoreError

TEXTS = make_texts(120)


@pytest.fixture(scope="module")
def direct(tiny_spec: Any) -> dict[str, np.ndarray]:
    """Each text's vectors straight from the model."""
    from llmembed.backbones import embed_texts

    return dict(zip(TEXTS, embed_texts(tiny_spec, TEXTS), strict=True))


def assert_rows(vectors: np.ndarray, texts: list[str], direct: dict[str, np.ndarray]) -> None:
    wanted = np.stack([direct[text] for text in texts])
    assert vectors.shape == wanted.shape
    np.testing.assert_allclose(vectors.astype(np.float32), wanted, atol=4e-3, rtol=2e-3)


def test_rows_come_in_the_order_of_the_texts_and_duplicates_are_embedded_once(
    tmp_path: Path, tiny_spec: Any, direct: dict[str, np.ndarray]
) -> None:
    texts = [TEXTS[i] for i in np.random.default_rng(0).permutation(60)] + TEXTS[:7]
    got = embed(tiny_spec, texts, LocalRuntime(tmp_path), part_rows=16)
    assert_rows(got.vectors, texts, direct)
    assert (got.computed, got.reused, got.duplicates) == (60, 0, 7)
    assert isinstance(got.vectors, np.memmap) and got.path is not None and got.path.exists()
    assert got.usage.tokens == int(got.tokens[:60].sum())
    assert 0 < got.working_seconds <= got.seconds + 0.05
    assert got.loading.seconds > 0
    assert "60 embedded, 0 reused from the store, 7 duplicates" in got.summary()


def test_only_missing_texts_are_computed_and_cached_ones_bear_their_cost(
    tmp_path: Path, tiny_spec: Any, direct: dict[str, np.ndarray]
) -> None:
    runtime = LocalRuntime(tmp_path)
    first = embed(tiny_spec, TEXTS[:80], runtime)
    second = embed(tiny_spec, TEXTS[40:], runtime)
    assert (second.computed, second.reused) == (40, 40)
    assert_rows(second.vectors, TEXTS[40:], direct)
    again = embed(tiny_spec, TEXTS[40:], runtime)
    assert (again.computed, again.reused, again.seconds) == (0, 80, 0.0)
    assert again.usage == second.usage and again.path == second.path
    # Both halves of the first texts share out what all of them took.
    low, high = (embed(tiny_spec, part, runtime).usage for part in (TEXTS[:30], TEXTS[30:80]))
    assert low.seconds + high.seconds == pytest.approx(first.usage.seconds)
    assert low.tokens + high.tokens == first.usage.tokens == int(first.tokens.sum())
    joules = low.energy_joules + high.energy_joules
    assert joules == pytest.approx(first.usage.energy_joules) and joules > 0


def test_the_share_that_was_cut_counts_this_data_sets_texts_only(
    tmp_path: Path, tiny_spec: Any
) -> None:
    runtime = LocalRuntime(tmp_path)
    everything = embed(tiny_spec, TEXTS, runtime)
    # [CLS], n<i>, 2 + i % 31 words, [SEP]; 24 tokens are read.
    full = np.array([5 + i % 31 for i in range(len(TEXTS))])
    assert everything.cut_texts == pytest.approx((full > 24).mean())
    assert everything.cut_tokens == pytest.approx(1 - np.minimum(full, 24).sum() / full.sum())
    assert everything.tokens.tolist() == np.minimum(full, 24).tolist()
    assert embed(tiny_spec, TEXTS[:10], runtime).cut_texts == 0


@pytest.mark.parametrize("name", ["flip", "truncate", "delete", "empty"])
def test_a_damaged_part_is_set_aside_and_its_rows_embedded_in_the_same_call(
    name: str,
    tmp_path: Path,
    tiny_spec: Any,
    direct: dict[str, np.ndarray],
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = LocalRuntime(tmp_path)
    embed(tiny_spec, TEXTS, runtime, part_rows=30)
    store = Store(tmp_path, tiny_spec)
    victim = store.parts()[1]
    path = Path(store.folder.address) / victim
    rows = len(store.head(victim).keys)
    damage: dict[str, Callable[[bytes], bytes]] = {
        # In the middle of the vectors: only the checksum over the whole file tells.
        "flip": lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :],
        "truncate": lambda b: b[: len(b) // 3],
        "empty": lambda b: b"",
    }
    if name == "delete":
        path.unlink()
    else:
        path.write_bytes(damage[name](path.read_bytes()))
    texts = TEXTS[::-1]
    got = embed(tiny_spec, texts, runtime, part_rows=30)
    assert_rows(got.vectors, texts, direct)
    assert (got.computed, got.reused) == (rows, len(TEXTS) - rows)
    assert victim not in store.parts()
    if name != "delete":
        assert got.damaged == (victim,) and victim in got.summary()
        assert (path.parent / "damaged" / victim).exists()
        assert victim in caplog.text
    assert embed(tiny_spec, TEXTS[1:], runtime).computed == 0


def test_doubled_keys_do_no_harm(
    tmp_path: Path, tiny_spec: Any, direct: dict[str, np.ndarray]
) -> None:
    runtime = LocalRuntime(tmp_path / "one")
    embed(tiny_spec, TEXTS[:50], runtime, part_rows=25)
    embed(tiny_spec, TEXTS[30:80], LocalRuntime(tmp_path / "two"), part_rows=25)
    mine, other = (Store(tmp_path / name, tiny_spec) for name in ("one", "two"))
    for name in other.parts():
        mine.folder.write(name, other.folder.read(name))
    got = embed(tiny_spec, TEXTS[:80], runtime)
    assert got.computed == 0
    assert_rows(got.vectors, TEXTS[:80], direct)


def test_small_waves_and_shards_give_the_same(
    tmp_path: Path, tiny_spec: Any, direct: dict[str, np.ndarray]
) -> None:
    runtime = LocalRuntime(tmp_path)
    got = embed(tiny_spec, TEXTS[:100], runtime, part_rows=8, wave_rows=21, shard_rows=13)
    assert_rows(got.vectors, TEXTS[:100], direct)
    assert got.computed == 100
    counts = [len(Store(tmp_path, tiny_spec).head(n).keys) for n in _parts(tmp_path, tiny_spec)]
    assert sum(counts) == 100 and max(counts) <= 8


def test_an_array_that_is_not_kept_leaves_nothing_behind_and_can_be_read(
    tmp_path: Path, tiny_spec: Any, direct: dict[str, np.ndarray]
) -> None:
    got = embed(tiny_spec, TEXTS[:20], LocalRuntime(tmp_path), keep=False)
    assert list(Store(tmp_path, tiny_spec).gathered_folder().iterdir()) == []
    assert got.path is None
    assert_rows(got.vectors, TEXTS[:20], direct)


@pytest.mark.parametrize("keep", [False, True])
def test_the_same_texts_can_be_gathered_at_once(
    keep: bool, tmp_path: Path, tiny_spec: Any, direct: dict[str, np.ndarray]
) -> None:
    runtime = LocalRuntime(tmp_path)
    embed(tiny_spec, TEXTS, runtime)
    folder = Store(tmp_path, tiny_spec).gathered_folder()
    start = threading.Barrier(4)

    def work(texts: list[str]) -> np.ndarray:
        start.wait()
        return embed(tiny_spec, texts, runtime, keep=keep).vectors

    with ThreadPoolExecutor(4) as pool:
        for turn in range(8):
            texts = TEXTS[turn : turn + 40]
            if turn % 2:  # an incomplete array is in the way
                stale = folder / digest_of(keys_of(texts))
                stale.mkdir()
                (stale / "vectors.npy").write_bytes(b"half an array")
            for vectors in pool.map(work, [texts] * 4):
                assert_rows(vectors, texts, direct)
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert left == []


def test_tokenising_counts_as_what_a_part_took(tmp_path: Path, tiny_spec: Any) -> None:
    tokenise, extract = (stage.make() for stage in stages(str(tmp_path), tiny_spec, rows=8))
    texts = TEXTS[:5]
    key = pa.array([bytes(row) for row in keys_of(texts).view(np.uint8)], pa.binary(16))
    table = tokenise(pa.table({"key": key, "text": texts}))
    first, *others = table.column(TOKENISING).to_pylist()
    told = json.loads(first)
    took = Usage.from_json(told["usage"])
    assert others == [None] * 4 and took.seconds > 0 and took.energy_joules > 0
    # As if it had been slow.
    slow = json.dumps({**told, "usage": (took + Usage(seconds=1000.0)).to_json()})
    place = table.column_names.index(TOKENISING)
    extract(table.set_column(place, TOKENISING, pa.array([slow, *others], pa.string())))
    store = Store(tmp_path, tiny_spec)
    usage = store.read(store.parts()[0]).usage
    assert 1000 < usage.seconds < 1100
    assert usage.tokens == pc.sum(table.column("kept")).as_py()


def test_a_part_took_all_since_the_one_before_it(tmp_path: Path, tiny_spec: Any) -> None:
    began = time.perf_counter()
    tokenise, extract = (stage.make() for stage in stages(str(tmp_path), tiny_spec, rows=8))
    usages = []
    for number, elsewhere in enumerate((False, False, True)):
        texts = TEXTS[8 * number : 8 * number + 8]
        key = pa.array([bytes(row) for row in keys_of(texts).view(np.uint8)], pa.binary(16))
        if number:
            time.sleep(0.3)  # a worker that waits for rows
        table = tokenise(pa.table({"key": key, "text": texts}))
        place = table.column_names.index(TOKENISING)
        told = json.loads(table.column(TOKENISING)[0].as_py())
        if elsewhere:
            told |= {"process": "another:1", "usage": Usage(seconds=1000.0).to_json()}
        column = pa.array([json.dumps(told), *[None] * 7], pa.string())
        receipt = extract(table.set_column(place, TOKENISING, column))
        # What making the model took is told once, and in no part.
        assert (loading_of(receipt).seconds > 0) == (number == 0)
        store = Store(tmp_path, tiny_spec)
        usages.append({n: store.read(n).usage for n in store.parts()})
    wall = time.perf_counter() - began
    parts = [
        now[name].seconds
        for before, now in zip([{}, *usages], usages, strict=False)
        for name in set(now) - set(before)
    ]
    assert 0 < parts[0] < 0.3 <= parts[1]
    # Tokenising in this process lies in the window already; elsewhere it is added.
    assert sum(parts[:2]) <= wall
    assert 1000.3 <= parts[2] <= 1000 + wall


def test_an_incomplete_array_is_gathered_anew(
    tmp_path: Path, tiny_spec: Any, direct: dict[str, np.ndarray]
) -> None:
    runtime = LocalRuntime(tmp_path)
    path = embed(tiny_spec, TEXTS[:20], runtime).path
    assert path is not None
    path.write_bytes(path.read_bytes()[:500])
    got = embed(tiny_spec, TEXTS[:20], runtime)
    assert_rows(got.vectors, TEXTS[:20], direct)
    assert got.computed == 0


def test_no_texts_and_wrong_texts(tmp_path: Path, tiny_spec: Any) -> None:
    none = embed(tiny_spec, [], LocalRuntime(tmp_path))
    assert none.vectors.shape == (0, 3, 32) and none.usage.seconds == 0
    assert "0 texts" in none.summary()
    with pytest.raises(DataError, match="text 0"):
        embed(tiny_spec, ["\udcff"], LocalRuntime(tmp_path))


def test_a_worker_that_writes_where_the_driver_does_not_look_is_noticed(
    tmp_path: Path, tiny_spec: Any
) -> None:
    class Elsewhere(LocalRuntime):
        """A folder that each machine has for itself."""

        calls = 0

        @property
        def files(self) -> str:
            self.calls += 1
            return str(tmp_path / ("driver" if self.calls == 1 else "worker"))

    with pytest.raises(StoreError, match="do all workers see this folder"):
        embed(tiny_spec, TEXTS[:5], Elsewhere(tmp_path))


def _parts(files: Path, spec: Any) -> list[str]:
    return Store(files, spec).parts()
