"""Benchmarks from the local copy (``LLMEMBED_DATA_DIR``) and the embedded default."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmembed.errors import ConfigError, DataError
from llmembed.texts import BENCHMARKS, Corpus, CorpusSource, load_corpus
from llmembed.texts.benchmarks import stdlib_docs
from llmembed.texts.benchmarks.goemotions import BENCHMARK as GOEMOTIONS
from llmembed.texts.benchmarks.goemotions import EMOTIONS
from llmembed.texts.benchmarks.imdb import BENCHMARK as IMDB
from llmembed.texts.benchmarks.massive_en import tagged

needs_copy = pytest.mark.skipif(
    not os.environ.get("LLMEMBED_DATA_DIR"),
    reason="LLMEMBED_DATA_DIR names no local copy of the benchmarks",
)


def load(name: str, folder: Path, seed: int = 0, **options: object) -> Corpus:
    source = CorpusSource.benchmark(name, **options)
    return load_corpus(source, quarantine_folder=folder, seed=seed)


@needs_copy
@pytest.mark.parametrize(
    ("name", "rows", "classes", "leak"),
    [
        ("sst2", (67349, 872), {"label": 2}, None),
        ("imdb", (40000, 10000), {"label": 2}, "137 of 10000"),
        ("r8", (5485, 2189), {"label": 8}, "4 of 2189"),
        ("r52", (6532, 2568), {"label": 52}, "6 of 2568"),
        ("20ng", (11314, 7532), {"topic": 20, "root": 7}, None),
    ],
)
def test_official_rows(
    name: str, rows: tuple[int, int], classes: dict[str, int], leak: str | None, tmp_path: Path
) -> None:
    corpus = load(name, tmp_path)
    assert corpus.test is not None and corpus.partial is None and corpus.quarantined is None
    assert (len(corpus.train) + len(corpus.valid), len(corpus.test)) == rows
    assert corpus.name == name
    assert len(corpus.valid) == pytest.approx(rows[0] / 10, abs=3)
    assert {task.name: len(task.classes) for task in corpus.tasks} == classes
    assert corpus.notes.get("leak_test", "").startswith(leak or "")
    assert (leak is None) == ("leak_test" not in corpus.notes)
    assert not set(corpus.train.texts) & set(corpus.valid.texts)
    for task in corpus.tasks:
        labels = corpus.train.labels[task.name]
        assert sorted(np.unique(labels)) == list(range(len(task.classes)))


@needs_copy
def test_r52_keeps_the_lone_rows_of_a_class_in_train(tmp_path: Path) -> None:
    corpus = load("r52", tmp_path)
    [task] = corpus.tasks
    platinum = task.classes.index("platinum")  # one training row
    assert (corpus.train.labels["label"] == platinum).sum() == 1
    assert not (corpus.valid.labels["label"] == platinum).any()


@needs_copy
def test_a_partial_copy_is_named_as_partial(tmp_path: Path) -> None:
    if (Path(os.environ["LLMEMBED_DATA_DIR"]) / "agnews").exists():
        pytest.skip("this copy of agnews is whole")
    corpus = load("agnews", tmp_path)
    assert corpus.partial == "15197 of 120000 training rows"
    assert corpus.name == "agnews-part"
    balanced = load("agnews", tmp_path, balanced=True)
    assert balanced.name == "agnews-balanced-part"
    counts = np.bincount(balanced.train.labels["label"])
    counts += np.bincount(balanced.valid.labels["label"])
    assert counts.tolist() == [2826] * 4


@needs_copy
def test_massive_has_its_own_validation_rows_and_three_tasks(tmp_path: Path) -> None:
    corpus = load("massive-en", tmp_path)
    assert [len(part) for part in corpus.splits.values()] == [11514, 2033, 2974]
    assert [(task.name, len(task.classes), task.kind) for task in corpus.tasks] == [
        ("intent", 60, "single"),
        ("scenario", 18, "single"),
        ("slots", 108, "tokens"),
    ]
    assert corpus.notes["leak_valid"].startswith("11 of 2033")
    assert corpus.train.words is not None
    place = list(corpus.train.texts).index("wake me up at nine am on friday")
    start, end = corpus.train.offsets[place : place + 2]
    tags = [corpus.tasks[2].classes[i] for i in corpus.train.labels["slots"][start:end]]
    assert tags == ["O", "O", "O", "O", "B-time", "I-time", "O", "B-date"]


@needs_copy
def test_goemotions_has_its_own_parts_and_28_labels_of_which_a_text_may_have_several(
    tmp_path: Path,
) -> None:
    corpus = load("goemotions", tmp_path)
    assert [len(part) for part in corpus.splits.values()] == [43410, 5426, 5427]
    assert corpus.name == "goemotions" and corpus.partial is None and corpus.quarantined is None
    [task] = corpus.tasks
    assert (task.name, task.kind, task.metric) == ("emotions", "multi", "macro_f1")
    assert sorted(task.classes) == sorted(EMOTIONS) and len(EMOTIONS) == 28
    several = corpus.train.labels["emotions"].sum(axis=1)
    assert (several == 1).sum() == 36308 and (several == 2).sum() == 6541  # as published
    assert several.min() == 1
    place = list(corpus.train.texts).index("WHY THE FUCK IS BAYLESS ISOING")
    assert [task.classes[i] for i in np.flatnonzero(corpus.train.labels["emotions"][place])] == [
        "anger"
    ]


def test_goemotions_from_the_hub_has_names_whether_or_not_the_hub_gives_them() -> None:
    numbers = pa.table({"text": ["a", "b"], "labels": [[2, 27], [0]], "id": ["x", "y"]})
    assert GOEMOTIONS.from_hub is not None
    named = GOEMOTIONS.from_hub({"train": numbers})["train"]
    assert named.to_pydict() == {
        "text": ["a", "b"],
        "labels": [["anger", "neutral"], ["admiration"]],
    }
    assert GOEMOTIONS.from_hub({"train": named})["train"].equals(named)


@needs_copy
def test_slots_from_the_markup_equal_the_published_ones() -> None:
    folder = Path(os.environ["LLMEMBED_DATA_DIR"]) / "massive-en"
    for file in ("train", "dev", "test"):
        for row in pq.read_table(folder / f"{file}.parquet").to_pylist():
            assert tagged(row["annot"]) == (row["tokens"], row["slots"])


def test_markup() -> None:
    assert tagged("wake me [time : five  am] [date : now ]") == (
        ["wake", "me", "five", "am", "now"],
        ["O", "O", "B-time", "I-time", "B-date"],
    )


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load("default", tmp_path_factory.mktemp("q"))


def test_the_default_is_real_text_of_this_python(default: Corpus) -> None:
    module, area = default.tasks
    assert (module.name, len(module.classes)) == ("module", 20)
    assert area.name == "area" and 5 <= len(area.classes) < 20
    assert "json" not in module.classes and "asyncio" in module.classes
    texts = [text for part in default.splits.values() for text in part.texts]
    assert len(texts) == len(set(texts)) > 2000
    assert min(len(text.split()) for text in texts) == stdlib_docs.WORDS
    import asyncio.queues

    assert asyncio.queues.Queue.get_nowait.__doc__ is not None
    [place] = [i for i, t in enumerate(texts) if t.startswith("Remove and return an item from")][:1]
    labels = np.concatenate([part.labels["module"] for part in default.splits.values()])
    assert module.classes[labels[place]] in {"asyncio", "multiprocessing"}
    assert default.quarantined is None and "name their own module" in default.notes["text"]


def test_the_area_follows_from_the_module(default: Corpus) -> None:
    module, area = default.tasks
    for part in default.splits.values():
        for m, a in zip(part.labels["module"], part.labels["area"], strict=True):
            assert stdlib_docs.area_of(module.classes[m]) == area.classes[a]
    assert stdlib_docs.area_of("a_module_of_tomorrow") == "other"


def test_the_default_is_the_same_twice_and_test_does_not_follow_the_seed(
    default: Corpus, tmp_path: Path
) -> None:
    stdlib_docs.collect.cache_clear()
    assert load("default", tmp_path).digest == default.digest
    other = load("default", tmp_path, seed=1)
    assert other.digest != default.digest
    assert default.test is not None and other.test is not None
    assert list(other.test.texts) == list(default.test.texts)


def test_public_files_leave_out_tests_and_private_modules() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    files = {str(file.relative_to(root)) for _, file in stdlib_docs.public_files(root)}
    assert {"json/decoder.py", "asyncio/queues.py", "argparse.py"} <= files
    assert not {f for f in files if "test_" in f or f.startswith(("test/", "_", "site-packages"))}


def test_files_are_parsed_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "tool.py").write_text(
        '"""A module docstring of six words."""\nraise SystemExit\n'
        "if True:\n    class A:\n        '''Another docstring that is here\n\n        too.'''\n"
        "        def f(self):\n            'too short'\n"
    )
    (tmp_path / "json" / "broken.py").write_text("def (:\n")
    assert stdlib_docs.collect(tmp_path) == (
        ("A module docstring of six words.", "json"),
        ("Another docstring that is here\n\ntoo.", "json"),
    )


def test_a_copy_with_rows_missing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r8").mkdir()
    for split, count in {"train": 100, "test": 2189}.items():
        table = pa.table(
            {
                "text": [f"{split} {i}" for i in range(count)],
                "label": ["ab"[i % 2] for i in range(count)],
            }
        )
        pq.write_table(table, tmp_path / "r8" / f"{split}.parquet")
    monkeypatch.setenv("LLMEMBED_DATA_DIR", str(tmp_path))
    corpus = load("r8", tmp_path / "q")
    assert (corpus.name, corpus.partial) == ("r8-part", "100 of 5485 training rows")


def test_imdb_from_the_hub_is_split_by_its_seed() -> None:
    def rows(split: str) -> pa.Table:
        return pa.table({"text": [f"{split} {i}" for i in range(50)], "label": ["a", "b"] * 25})

    tables = {"train": rows("x"), "test": rows("y")}
    assert IMDB.from_hub is not None
    first = IMDB.from_hub(tables)
    backwards = {split: table.take(list(range(50))[::-1]) for split, table in tables.items()}
    assert IMDB.from_hub(backwards)["test"].equals(first["test"])
    assert (len(first["train"]), len(first["test"])) == (80, 20)
    texts = first["train"]["text"].to_pylist() + first["test"]["text"].to_pylist()
    assert sorted(texts) == sorted(f"{s} {i}" for s in "xy" for i in range(50))


def test_unknown_names_and_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'agnews'"):
        CorpusSource.benchmark("ag-news")
    with pytest.raises(ConfigError, match="has no option 'size'; it has balanced"):
        CorpusSource.benchmark("agnews", size=3)
    monkeypatch.setenv("LLMEMBED_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(DataError, match="which is no folder"):
        load("r8", tmp_path)
    assert all(name == entry.name for name, entry in BENCHMARKS.items())
