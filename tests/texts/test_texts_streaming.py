"""Readers for prediction: every row once, in tables of bounded size, in bounded memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmembed.errors import ConfigError, DataError
from llmembed.texts import Form, readers
from llmembed.texts.streaming import PART_ROWS

TEXTS = [f"text {i}" for i in range(1000)]


def write(folder: Path, suffix: str, texts: list[str] = TEXTS) -> Path:
    path = folder / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "body": texts}), path)
    elif suffix == "jsonl":
        rows = (json.dumps({"id": i, "body": t}) for i, t in enumerate(texts))
        path.write_text("\n".join(rows))
    else:
        cut = "," if suffix == "csv" else "\t"
        lines = [f"id{cut}body", *(f"{i}{cut}{t}" for i, t in enumerate(texts))]
        path.write_text("\n".join(lines))
    return path


def read(found: list) -> pa.Table:  # type: ignore[type-arg]
    """All rows, each reader pickled as it would be for a worker."""
    tables = [table for reader in found for table in pickle.loads(pickle.dumps(reader))()]  # noqa: S301
    assert all(table.schema == tables[0].schema for table in tables)
    return pa.concat_tables(tables)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_row_once_in_small_tables(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path, suffix)
    found = readers(path, "body", 64, keep=["id"])
    assert max(table.num_rows for reader in found for table in reader()) <= 64
    table = read(found)
    assert table.column_names == ["index", "file", "text", "id"]
    assert table["index"].to_pylist() == list(range(1000))
    assert table["text"].to_pylist() == TEXTS
    assert set(table["file"].to_pylist()) == {str(path)}
    assert [int(i) for i in table["id"].to_pylist()] == list(range(1000))
    assert [table.schema.field(i).type for i in range(3)] == [pa.int64(), pa.string(), pa.string()]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_bad_rows_are_quarantined_and_the_others_keep_their_index(
    suffix: str, tmp_path: Path
) -> None:
    texts = list(TEXTS)
    texts[10] = texts[500] = " "
    path = write(tmp_path, suffix, texts)
    if suffix == "csv":
        lines = path.read_bytes().split(b"\n")
        lines[700] = b"one,two,three"
        lines[800] = b"799,caf\xe9"
        path.write_bytes(b"\n".join(lines))
    folder = tmp_path / "quarantine"
    table = read(readers(path, "body", 64, quarantine_folder=folder))
    bad_rows = [10, 500, 699, 799] if suffix == "csv" else [10, 500]
    assert table["index"].to_pylist() == [i for i in range(1000) if i not in bad_rows]
    assert table["text"].to_pylist() == [texts[i] for i in range(1000) if i not in bad_rows]
    [written] = folder.iterdir()
    records = [json.loads(line) for line in written.read_text("utf-8").splitlines()]
    first_line = 2 if suffix == "csv" else 1
    assert [record["line"] for record in records] == [i + first_line for i in bad_rows]
    assert records[0]["reason"] == "the text is white space only"
    assert records[0]["file"] == str(path)
    again = read(readers(path, "body", 64, quarantine_folder=folder))
    assert again.equals(table)
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(DataError, match=rf"line {10 + first_line}: the text is white space"):
        read(readers(path, "body", 64))


def test_a_large_parquet_file_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = PART_ROWS * 2 + 10
    texts = pa.array(["x"]).take(pa.array([0] * rows))
    pq.write_table(pa.table({"body": texts}), path, row_group_size=PART_ROWS // 4)
    found = readers(path, "body", 5000)
    assert len(found) == 3
    assert read(found)["index"].to_pylist() == list(range(rows))
    assert next(iter(found[1]()))["index"][0].as_py() == PART_ROWS


def test_two_files_of_one_name_do_not_share_a_quarantine(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write(tmp_path / "data" / name, "csv", ["good", " "])
    read(readers(tmp_path / "data", "body", quarantine_folder=tmp_path / "q"))
    assert len(list((tmp_path / "q").iterdir())) == 2


def test_readers_work_in_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/rows.csv").write_text("body\none\n \ntwo\n")
    found = [
        readers(source, "body", quarantine_folder="aside")[0]
        for source in ("data", "data/*.csv", "./data/rows.csv", "*/rows.csv")
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for reader in found:
        table = pa.concat_tables(reader())
        assert table["text"].to_pylist() == ["one", "two"]
        assert set(table["file"].to_pylist()) == {str(tmp_path / "data" / "rows.csv")}
    assert len(list((tmp_path / "aside").iterdir())) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


def test_users_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path, "csv")
    with pytest.raises(DataError, match="Did you mean 'body'"):
        read(readers(path, "bdy"))
    with pytest.raises(DataError, match="no column 'nothing'"):
        read(readers(path, "body", keep=["nothing"]))
    with pytest.raises(ConfigError, match="taken by our own"):
        readers(path, "body", keep=["index"])
    with pytest.raises(ConfigError, match="chunk_rows is 0"):
        readers(path, "body", 0)
    with pytest.raises(DataError, match="there is no file"):
        readers(tmp_path / "none.csv", "body")


@pytest.mark.parametrize(
    ("name", "content", "assumed"),
    [
        (
            "rows.csv",
            "id;body\n" + "".join(f"{i};{t}\n" for i, t in enumerate(TEXTS)),
            "cut at ';'",
        ),
        (
            "rows.csv",
            "sep=|\nbody|id\n" + "".join(f"{t}|1\n" for t in TEXTS),
            "its first line says",
        ),
        ("rows.json", json.dumps([{"body": t, "id": 1} for t in TEXTS], indent=1), ""),
    ],
)
def test_other_forms_are_read_as_by_fit_and_told(
    name: str, content: str, assumed: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(content.encode(encoding))
        found = readers(path, "body", 64, keep=["id"])
        assert assumed in found[0].assumed
        assert ("read as UTF-16" in found[0].assumed) == (encoding == "utf-16")
        assert read(found)["text"].to_pylist() == TEXTS
        assert read(found)["index"].to_pylist() == list(range(1000))


def test_an_encoding_that_is_said_is_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("body^id\ncafé^1\n".encode("cp1252"))
    with pytest.raises(DataError, match="it may be cp1252"):
        readers(path, "body", form=Form(delimiter="^"))
    found = readers(path, "body", form=Form(delimiter="^", encoding="cp1252"))
    assert read(found)["text"].to_pylist() == ["café"]
    assert found[0].assumed == ""


MEASURE = """
import resource, sys
from llmembed.texts import readers
import pyarrow.parquet, pyarrow.csv, pyarrow.json, llmembed.texts.checks, llmembed.texts.blocks
small, large = sys.argv[1:]
rows = 0
def drain(path):
    return sum(t.num_rows for r in readers(path, "body", 1000) for t in r())
drain(small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = drain(large)
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_file(suffix: str, tmp_path: Path) -> None:
    """Twenty-five blocks of 8 MiB may not cost six times what four do; of a JSON list, which takes
    longer to read, eight of them what two do."""
    folders = {"small": 32 << 20, "large": 200 << 20}
    if suffix == "json":
        folders = {"small": 16 << 20, "large": 64 << 20}
    paths = []
    for name, size in folders.items():
        (tmp_path / name).mkdir()
        text = "some words of a text that is about a hundred characters long as many are " * 10
        count = size // len(text)
        path = tmp_path / name / f"rows.{suffix}"
        if suffix == "parquet":
            schema = pa.schema({"body": pa.string()})
            with pq.ParquetWriter(path, schema, use_dictionary=False, compression=None) as writer:
                block = pa.table({"body": [f"{text}{i}" for i in range(10_000)]})
                for _ in range(count // 10_000):
                    writer.write_table(block)
        else:
            line = f"{text}\n" if suffix == "csv" else json.dumps({"body": text}) + "\n"
            with path.open("w") as stream:
                stream.write({"csv": "body\n", "json": "["}.get(suffix, ""))
                for _ in range(count // 1000):
                    stream.write(line.replace("}\n", "},\n" if suffix == "json" else "}\n") * 1000)
                stream.write("]" if suffix == "json" else "")
        paths.append(str(path))
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True
    )
    rows, grown_mib = map(int, out.stdout.split())
    assert rows > folders["large"] // 1000
    assert grown_mib < 80
