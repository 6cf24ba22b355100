"""Rows of every format and place, through the same door as a user's: ``load_corpus``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from texts_reading import ROWS, csv_bytes, load, pairs, write

from llmembed.errors import DataError


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_corpus(suffix: str, tmp_path: Path) -> None:
    expected = load(write(tmp_path / "rows.csv", ROWS), tmp_path)
    corpus = load(write(tmp_path / f"rows.{suffix}", ROWS), tmp_path)
    assert pairs(corpus) == sorted(ROWS)
    assert corpus.digest == expected.digest
    assert corpus.quarantined is None
    assert (len(corpus.train), len(corpus.valid), corpus.test) == (180, 20, None)


def test_one_file_a_folder_and_a_glob(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    write(folder / "one.csv", ROWS[:100])
    write(folder / "deep" / "two.csv", ROWS[100:])
    (folder / "README.md").write_text("not data")
    (folder / "_SUCCESS").write_text("")
    assert pairs(load(folder, tmp_path)) == sorted(ROWS)
    assert pairs(load(tmp_path / "data" / "*.csv", tmp_path)) == sorted(ROWS[:100])
    assert pairs(load(tmp_path / "data" / "**" / "*.csv", tmp_path)) == sorted(ROWS)
    assert pairs(load([folder / "one.csv", folder / "deep"], tmp_path)) == sorted(ROWS)
    write(folder / "rows.parquet", ROWS)
    with pytest.raises(DataError, match=r"several kinds \(csv, parquet\)"):
        load(folder, tmp_path)


def test_a_folder_of_splits_is_not_read_as_train(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS[:150])
    write(tmp_path / "test-00000.csv", ROWS[150:])
    corpus = load(tmp_path, tmp_path)
    assert corpus.test is not None and len(corpus.test) == 50
    assert sorted(corpus.test.texts) == sorted(text for text, _ in ROWS[150:])
    write(tmp_path / "more.csv", ROWS)
    with pytest.raises(DataError, match=r"more\.csv is not"):
        load(tmp_path, tmp_path)


def test_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(csv_bytes()))
    assert pairs(load(path, tmp_path)) == sorted(ROWS)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
        lambda data: data.replace(b"\n", b"\n\n"),
        lambda data: data.removesuffix(b"\n"),
    ],
    ids=["bom", "crlf", "cr", "empty lines", "no last newline"],
)
def test_csv_written_elsewhere(change, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rows.csv"
    path.write_bytes(change(csv_bytes()))
    assert pairs(load(path, tmp_path)) == sorted(ROWS)


def test_strange_but_good_texts(tmp_path: Path) -> None:
    texts = [
        'two\nlines and a "quoted" word',
        "nul \x00 inside",
        "long " * 2_000_000,  # longer than a reader's block
        "NA",
        "null",
        "  leading space is kept",
        "日本語 🙂",
    ]
    rows = ROWS + [(text, "a") for text in texts]
    csv = tmp_path / "rows.csv"
    quoted = [(text.replace('"', '""'), label) for text, label in rows]
    csv.write_bytes(csv_bytes(quoted))
    jsonl = tmp_path / "rows.jsonl"
    jsonl.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in rows))
    for path in (csv, jsonl):
        corpus = load(path, tmp_path)
        assert corpus.quarantined is None
        assert pairs(corpus) == sorted(rows)


def test_a_lone_quote_mark_in_a_tsv_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    rows = [*ROWS, ('"half a quotation', "a"), ('5" disk', "b")]
    path.write_text("text\tlabel\n" + "".join(f"{t}\t{c}\n" for t, c in rows))
    assert pairs(load(path, tmp_path)) == sorted(rows)
    path.write_text(
        'text\tlabel\n"say ""hi""\tthere"\ta\n' + "".join(f"{t}\t{c}\n" for t, c in ROWS)
    )
    assert pairs(load(path, tmp_path)) == sorted([*ROWS, ('say "hi"\tthere', "a")])
