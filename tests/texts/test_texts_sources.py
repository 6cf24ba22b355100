"""Rows of every format, good and bad, through the same door as a user's: ``load_corpus``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmembed.errors import ConfigError, DataError
from llmembed.texts import Columns, Corpus, CorpusSource, load_corpus

ROWS = [(f"text number {i}, with a comma", "ab"[i % 2]) for i in range(200)]
HEADER = b"text,label\n"


def csv_bytes(rows: list[tuple[str, str]] = ROWS) -> bytes:
    return HEADER + "".join(f'"{text}",{label}\n' for text, label in rows).encode()


def load(path: Path | list[Path], tmp_path: Path, **columns: object) -> Corpus:
    limit = columns.pop("max_bad_fraction", 0.01)
    source = CorpusSource.files(path, columns=Columns(**columns))  # type: ignore[arg-type]
    return load_corpus(
        source,
        quarantine_folder=tmp_path / "quarantine",
        max_bad_fraction=limit,  # type: ignore[arg-type]
    )


def pairs(corpus: Corpus, task: str = "label") -> list[tuple[str, str]]:
    """Every (text, class name), in no order."""
    classes = next(t.classes for t in corpus.tasks if t.name == task)
    return sorted(
        (text, classes[label])
        for part in corpus.splits.values()
        for text, label in zip(part.texts, part.labels[task], strict=True)
    )


def quarantined(corpus: Corpus) -> list[tuple[int, str]]:
    assert corpus.quarantined is not None
    lines = corpus.quarantined.path.read_text("utf-8").splitlines()
    assert len(lines) == corpus.quarantined.count
    return [(record["line"], record["reason"]) for record in map(json.loads, lines)]


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    table = pa.table(
        {"id": range(len(rows)), "text": [t for t, _ in rows], "label": [c for _, c in rows]}
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=64)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        cut = "\t" if path.suffix == ".tsv" else ","
        quote = "" if path.suffix == ".tsv" else '"'
        lines = [f"{i}{cut}{quote}{t}{quote}{cut}{c}" for i, (t, c) in enumerate(rows)]
        path.write_text("\n".join([cut.join(["id", "text", "label"]), *lines]) + "\n")
    return path


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
    assert pairs(corpus) == sorted(ROWS)


def test_a_lone_quote_mark_in_a_tsv_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    rows = [*ROWS, ('"half a quotation', "a"), ('5" disk', "b")]
    path.write_text("text\tlabel\n" + "".join(f"{t}\t{c}\n" for t, c in rows))
    assert pairs(load(path, tmp_path)) == sorted(rows)
    path.write_text(
        'text\tlabel\n"say ""hi""\tthere"\ta\n' + "".join(f"{t}\t{c}\n" for t, c in ROWS)
    )
    assert pairs(load(path, tmp_path)) == sorted([*ROWS, ('say "hi"\tthere', "a")])


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


def test_json_labels_that_change_their_type(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    labels = [1, "1", 2, "two", True, 2.0] * 20
    path.write_text(
        "".join(json.dumps({"text": f"t{i}", "label": v}) + "\n" for i, v in enumerate(labels))
    )
    assert {c for _, c in pairs(load(path, tmp_path))} == {"1", "2", "two", "true"}


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


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_integer_labels_sort_by_value(kind: str, tmp_path: Path) -> None:
    rows = [(f"t{i}", i % 11) for i in range(110)]
    path = write(tmp_path / f"rows.{kind}", rows)  # type: ignore[arg-type]
    corpus = load(path, tmp_path)
    assert corpus.tasks[0].classes == tuple(str(i) for i in range(11))
    assert pairs(corpus) == sorted((text, str(label)) for text, label in rows)


def test_several_labels_a_text(tmp_path: Path) -> None:
    labels = [["x"], ["y", "x"], [], ["z"]] * 50
    texts = [f"text {i}" for i in range(200)]
    parquet, csv = tmp_path / "rows.parquet", tmp_path / "rows.csv"
    pq.write_table(pa.table({"text": texts, "tags": labels}), parquet)
    csv.write_text(
        "text,tags\n"
        + "".join(f"{t},{'; '.join(c)};\n" for t, c in zip(texts, labels, strict=True))
    )
    for path in (parquet, csv):
        corpus = load(path, tmp_path, labels="tags", kinds={"tags": "multi"}, separator=";")
        assert corpus.tasks[0].classes == ("x", "y", "z")
        found = {
            text: row.tolist()
            for part in corpus.splits.values()
            for text, row in zip(part.texts, part.labels["tags"], strict=True)
        }
        wanted = {t: ["x" in c, "y" in c, "z" in c] for t, c in zip(texts, labels, strict=True)}
        assert found == wanted
        assert corpus.train.labels["tags"].dtype == bool
    with pytest.raises(DataError, match="name its kind"):
        load(parquet, tmp_path, labels="tags")


def test_several_label_columns_and_words(tmp_path: Path) -> None:
    words = [["turn", "off", "now"], ["at", "nine"]] * 40
    tags = [["O", "O", "B-time"], ["O", "B-time"]] * 40
    table = {
        "words": words,
        "tags": tags,
        "intent": ["off", "set"] * 40,
        "text": [" ".join(w) + f" {i}" for i, w in enumerate(words)],
    }
    path = tmp_path / "rows.jsonl"
    records = pa.table(table).to_pylist()
    records[4]["tags"] = ["O"]
    records[6]["tags"] = ["O", "O", "time"]
    records[8]["words"] = ["turn", "", "now"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    corpus = load(
        path,
        tmp_path,
        labels={"intent": "intent", "slots": "tags"},
        kinds={"slots": "tokens"},
        words="words",
        max_bad_fraction=0.05,
    )
    assert [reason for _, reason in quarantined(corpus)] == [
        "the number of tags in 'tags' is not the number of words",
        "a tag in 'tags' is not O, B-… or I-…",
        "a value in the list 'words' is empty or not UTF-8",
    ]
    slots = corpus.tasks[1]
    assert (slots.kind, slots.classes) == ("tokens", ("O", "B-time"))
    assert corpus.train.words is not None
    for place in (0, 5, len(corpus.train) - 1):
        start, end = corpus.train.offsets[place : place + 2]
        expected = [0] * (end - start - 1) + [1]
        assert corpus.train.labels["slots"][start:end].tolist() == expected
    assert len(corpus.train.labels["slots"]) == corpus.train.offsets[-1]


def test_words_may_be_split_from_the_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"at {i},O B-time\ngo  home {i},O B-place O\n" for i in range(20)]
    path.write_text("text,tags\n" + "".join(rows))
    corpus = load(path, tmp_path, labels="tags", kinds={"tags": "tokens"})
    assert corpus.tasks[0].classes == ("O", "B-place", "B-time")
    assert corpus.train.words is not None
    assert {len(words) for words in corpus.train.words} == {2, 3}


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
        ("rows.csv", "text,label\nx,a\n".encode("utf-16"), "is UTF-16"),
        ("rows.csv", b"text,label\n", "no training rows"),
        ("rows.csv", b"text,text,label\nx,y,a\n", "2 columns named 'text'"),
        ("rows.csv", b"text,label\n" + b"x,a\n" * 50, r"1 class in the training rows \(a\)"),
        ("rows.csv", b"text,label\n" + b"x,a\ny,b\n" * 2, "too few to hold out"),
        ("rows.jsonl", b'[{"text": "x"}]', "one JSON list"),
        ("rows.parquet", b"PAR1 not really", "no readable Parquet file"),
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
    with pytest.raises(DataError, match=r"no csv, tsv, jsonl or parquet file matches"):
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


def test_class_names_of_the_hub_are_used(tmp_path: Path) -> None:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
    }
    table = pa.table({"text": [t for t, _ in ROWS], "label": np.arange(200) % 2})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "rows.parquet")
    assert load(tmp_path / "rows.parquet", tmp_path).tasks[0].classes == ("neg", "pos")
