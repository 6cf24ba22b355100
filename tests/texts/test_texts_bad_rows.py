"""Bad rows and bad sources: set aside with file, line and reason, or answered in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from texts_reading import HEADER, ROWS, csv_bytes, load, pairs, quarantined, write

from llmembed.errors import ConfigError, DataError
from llmembed.texts import Columns, delimited


def test_bad_csv_rows_are_set_aside_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = csv_bytes().splitlines(keepends=True)
    rows[1:1] = [b'"first\nsecond",a\n']  # lines 2 and 3
    bad = [
        b",a\n",
        b'"  ",a\n',
        b"text only\n",
        b"a,b,c\n",
        "caf\u00e9,a\n".encode("latin-1"),
        b"no label,\n",
        b"no label, \n",
    ]
    rows[50:50] = bad
    path.write_bytes(b"".join(rows))
    with pytest.raises(
        DataError, match=r"7 of 208 rows of rows are bad, above the limit of 1\.00%"
    ):
        load(path, tmp_path)
    corpus = load(path, tmp_path, max_bad_fraction=0.05)
    assert quarantined(corpus) == [
        (52, "the text is empty"),
        (53, "the text is white space only"),
        (54, "the row has 1 values, the header 2"),
        (55, "the row has 3 values, the header 2"),
        (56, "not UTF-8"),
        (57, "no label in 'label'"),
        (58, "no label in 'label'"),
    ]
    assert pairs(corpus) == sorted([*ROWS, ("first\nsecond", "a")])


def test_content_faults_keep_their_line_on_the_fast_path(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + b'"a\nb",a\n\n ,b\n' + csv_bytes().removeprefix(HEADER))
    assert quarantined(load(path, tmp_path)) == [(5, "the text is white space only")]


@pytest.mark.parametrize("position", [0, 1], ids=["first column", "last column"])
def test_a_quote_never_closed_does_not_swallow_rows_unseen(position: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    broken = b'"open,a\n' if position == 0 else b'text,"a\n'
    path.write_bytes(csv_bytes() + broken + b"x,b\ny,a\n")
    corpus = load(path, tmp_path)
    assert quarantined(corpus) == [(202, "a quote is opened and never closed")]
    assert pairs(corpus) == sorted([*ROWS, ("x", "b"), ("y", "a")])


STRAY = "a quote is opened and never closed"
CLOSED_LATER = "a quote is opened and closed inside a value of a later line"


@pytest.mark.parametrize(
    ("stray", "later", "reason"),
    [
        (b'"\n', b"", STRAY),
        (b'"open,a\n', b"", STRAY),
        (b'open,"a\n', b"", STRAY),
        (b'"\n', b'"quoted, with a comma",a\n', CLOSED_LATER),
        (b'"open,a\n', b'"quoted",a\n', CLOSED_LATER),
    ],
)
def test_a_stray_quote_costs_its_own_line_only(
    stray: bytes, later: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    lines = [b"text %d,%s\n" % (i, b"ab"[i % 2 : i % 2 + 1]) for i in range(2000)]
    lines[1700:1700] = [later] if later else []
    path.write_bytes(b"".join([HEADER, *lines[:1500], stray, *lines[1500:]]))
    corpus = load(path, tmp_path)
    assert quarantined(corpus) == [(1502, reason)]
    assert sum(len(part) for part in corpus.splits.values()) == 2000 + bool(later)
    assert not any("\n" in text for text, _ in pairs(corpus))


def test_each_stray_quote_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [b'"open %d,a\n' % i if i % 20 == 0 else b"t%d,b\n" % i for i in range(2000)]
    path.write_bytes(HEADER + b"".join(lines) + b"last,a\n")
    with pytest.raises(DataError, match="100 of 2001 rows of rows are bad"):
        load(path, tmp_path)


def test_values_of_several_lines_with_quotes_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [(f'line {i}\nand "so"', "ab"[i % 2]) for i in range(100)]
    quoted = [(text.replace('"', '""'), label) for text, label in rows]
    path.write_bytes(csv_bytes(quoted))
    corpus = load(path, tmp_path)
    assert corpus.quarantined is None
    assert pairs(corpus) == sorted(rows)


def test_what_follows_a_stray_quote_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "ROW_CHARACTERS", 1000)
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + b'"\n' + csv_bytes([(f"t{i}", "ab"[i % 2]) for i in range(500)]))
    content = path.read_bytes().replace(b'"t', b"t").replace(b'",', b",")
    path.write_bytes(content)
    corpus = load(path, tmp_path)
    assert quarantined(corpus) == [(2, STRAY)]
    assert sum(len(part) for part in corpus.splits.values()) == 501  # and the header's own text


def test_columns_of_one_name_that_nobody_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b"text,label,x,x\n"
        + b"".join(b"t%d,%s,1,2\n" % (i, b"ab"[i % 2 : i % 2 + 1]) for i in range(100))
    )
    corpus = load(path, tmp_path)
    assert corpus.quarantined is None
    assert sum(len(part) for part in corpus.splits.values()) == 100


@pytest.mark.parametrize("label", [float("inf"), -float("inf"), 2.0**53, 1e300])
def test_a_float_that_is_no_class_number(label: float, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    texts = [f"t{i}" for i in range(101)]
    pq.write_table(pa.table({"text": texts, "label": [*([0.0, 1.0] * 50), label]}), path)
    assert quarantined(load(path, tmp_path)) == [
        (101, "label 'label' is not a whole number or a name")
    ]


def test_bad_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = [json.dumps({"text": t, "label": c}).encode() for t, c in ROWS]
    bad = [
        b'{"text": "cut',
        b"[1, 2]",
        b'{"text": 7, "label": "a"}',
        b'{"label": "a"}',
        b'{"text": "x", "label": {"a": 1}}',
        b'{"text": "\xff", "label": "a"}',
        b'{"text": "\\ud800", "label": "a"}',
        b'{"text": "x", "label": null}',
        b'{"text": "x", "label": 0.5}',
    ]
    path.write_bytes(b"\n".join([*good[:10], b"", *bad, *good[10:]]) + b"\n")
    corpus = load(path, tmp_path, max_bad_fraction=0.05)
    assert quarantined(corpus) == [
        (12, "the line is not JSON"),
        (13, "the line holds a list, not an object"),
        (14, "column 'text' holds a number, not a text"),
        (15, "no text"),
        (16, "column 'label' holds an object, not a name or a whole number"),
        (17, "not UTF-8"),
        (18, "not UTF-8"),
        (19, "no label in 'label'"),
        (20, "column 'label' holds a number, not a name or a whole number"),
    ]
    assert pairs(corpus) == sorted(ROWS)


def test_bad_parquet_rows(tmp_path: Path) -> None:
    texts = [text.encode() for text, _ in ROWS]
    texts[3], texts[5] = b"caf\xe9", b""
    binary = pa.array([*texts, None], pa.binary())
    invalid = pa.StringArray.from_buffers(len(binary), *binary.buffers()[1:3], binary.buffers()[0])
    labels: list[float | None] = [float(i % 3) for i in range(201)]
    labels[7], labels[9] = None, 0.5
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": invalid, "label": labels}), path, row_group_size=50)
    corpus = load(path, tmp_path, max_bad_fraction=0.05)
    assert quarantined(corpus) == [
        (4, "not UTF-8"),
        (6, "the text is empty"),
        (8, "no label in 'label'"),
        (10, "label 'label' is not a whole number or a name"),
        (201, "no text"),
    ]
    assert corpus.tasks[0].classes == ("0", "1", "2")


def test_an_unknown_column_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        path = write(tmp_path / f"rows.{suffix}", ROWS)
        with pytest.raises(DataError, match=r"no column 'lable'; its columns are id, text, label"):
            load(path, tmp_path, labels="lable")
        with pytest.raises(DataError, match="Did you mean 'text'"):
            load(path, tmp_path, text="Txt")


def test_a_json_column_missing_from_the_first_line_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = ['{"text": "no label here"}'] + [json.dumps({"text": t, "label": c}) for t, c in ROWS]
    path.write_text("\n".join(lines))
    assert quarantined(load(path, tmp_path)) == [(1, "no label in 'label'")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.csv", b"", "is empty"),
        ("rows.csv", b"text,label\n", "no training rows"),
        ("rows.csv", b"text,text,label\nx,y,a\n", "2 columns named 'text'"),
        ("rows.csv", b"text,label\n" + b"x,a\n" * 50, r"1 class in the training rows \(a\)"),
        ("rows.csv", b"text,label\n" + b"x,a\ny,b\n" * 2, "too few to hold out"),
        ("rows.jsonl", b'[{"text": "x"}]', "no column 'label'"),
        ("rows.parquet", b"PAR1 not really", "no readable Parquet file"),
        ("rows.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("rows.arrow", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("rows.arrow", b"ARROW1 not really", "no readable Arrow file"),
        ("rows.arrow", b"", "no readable Arrow file"),
        ("rows.jsonl", b"PK\x03\x04" + bytes(40), "a zip archive or an Excel workbook"),
        ("rows.txt", b"x", "no suffix that names its format"),
    ],
)
def test_sources_that_cannot_be_read(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name, tmp_path)


def test_columns_of_a_wrong_type_and_missing_files(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", ROWS)
    with pytest.raises(DataError, match=r"column 'id' of .* holds int64, not texts"):
        load(path, tmp_path, text="id")
    with pytest.raises(DataError, match="there is no file or folder"):
        load(tmp_path / "none.csv", tmp_path)
    with pytest.raises(DataError, match=r"no csv, tsv, jsonl, parquet or arrow file matches"):
        load(tmp_path / "*.csv", tmp_path)
    with pytest.raises(ConfigError, match="must be one of single, multi, tokens"):
        Columns(kinds={"label": "several"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="one purpose only"):
        load(path, tmp_path, labels="text")


def test_a_clean_reading_removes_an_old_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_bytes() + b",a\n")
    corpus = load(path, tmp_path)
    assert corpus.quarantined is not None and corpus.quarantined.path.exists()
    path.write_bytes(csv_bytes())
    assert load(path, tmp_path).quarantined is None
    assert not corpus.quarantined.path.exists()
