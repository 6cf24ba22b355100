"""``predict`` on real files, in this process and through a real Ray."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from topic_files import (
    TONES,
    TOPIC,
    TOPICS,
    save_classifier,
    text_of,
    topic_of,
    write_csv,
)

from llmembed.errors import ConfigError, DataError
from llmembed.pipelines.predict import predict


def test_files_of_all_kinds_are_labelled_in_their_order(
    local_ray: None, model: str, tmp_path: Path
) -> None:
    write_csv(tmp_path / "a.csv", range(2500))
    lines = [json.dumps({"id": row, "body": text_of(row)}) for row in range(2500, 2600)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    (tmp_path / "c").mkdir()
    for part in (0, 1):
        rows = range(2600 + part * 50, 2650 + part * 50)
        table = pa.table({"id": list(rows), "body": [text_of(row) for row in rows]})
        pq.write_table(table.cast(pa.schema({"id": pa.string(), "body": pa.string()})),
                       tmp_path / "c" / f"{part}.parquet")  # fmt: skip
    output = tmp_path / "out" / "labels.jsonl"
    done = predict(
        model=model,
        data=[str(tmp_path / name) for name in ("a.csv", "b.jsonl", "c")],
        text_column="body",
        output=str(output),
        keep=["id"],
        json_path=str(tmp_path / "figures.json"),
    )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [int(row["id"]) for row in rows] == list(range(2700))
    assert [row["text"] for row in rows] == [text_of(row) for row in range(2700)]
    assert [row["label"] for row in rows] == [topic_of(row) for row in range(2700)]
    assert [row["index"] for row in rows[2495:2505]] == [*range(2495, 2500), *range(5)]
    assert rows[2650]["file"] == str(tmp_path / "c" / "1.parquet")
    assert (done.rows, done.reused_rows, done.bad_rows) == (2700, 0, 0)
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == 2700
    assert done.usage.seconds > 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["labels.jsonl"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ""])
def test_every_kind_of_output_says_the_same(model: str, tmp_path: Path, ending: str) -> None:
    data = write_csv(tmp_path / "a.csv", range(1500))
    output = tmp_path / f"labels{ending}"
    predict(
        model=model, data=[str(data)], text_column="body", output=str(output), local=True,
        scores=True,
    )  # fmt: skip
    table = {
        ".csv": pacsv.read_csv,
        ".parquet": pq.read_table,
        "": pq.read_table,
        ".jsonl": lambda path: pa.Table.from_pylist(
            [json.loads(line) for line in path.read_text().splitlines()]
        ),
    }[ending](output)
    assert table["label"].to_pylist() == [topic_of(row) for row in range(1500)]
    scores = np.stack([table[f"score:{name}"].to_numpy() for name in TOPICS], axis=1)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-4)
    assert np.allclose(scores.max(axis=1), table["score"].to_numpy(), atol=1e-6)


def test_several_tasks_and_several_labels(model: str, tmp_path: Path) -> None:
    both = save_classifier(tmp_path / "both", TOPIC, TONES)
    data = write_csv(tmp_path / "a.csv", range(24))
    output = tmp_path / "labels.csv"
    settings = {"data": [str(data)], "text_column": "body", "local": True}
    predict(model=str(both), output=str(output), **settings)
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["topic_label"] for row in rows] == [topic_of(row) for row in range(24)]
    expected = [
        ",".join(name for name, has in (("fell", i % 3 == 0), ("rose", i % 2 == 0)) if has)
        for i in range(24)
    ]
    assert [row["tones_label"] for row in rows] == expected
    tones = save_classifier(tmp_path / "tones", TONES)
    with pytest.raises(ConfigError, match="--unknown-below"):
        predict(model=str(tones), output=str(output), unknown_below=0.5, **settings)


def test_unknown_below_a_score(model: str, tmp_path: Path) -> None:
    data = tmp_path / "a.csv"
    data.write_text(f"body\n{text_of(0)}\nnothing known here\n")
    output = tmp_path / "labels.jsonl"
    predict(
        model=model, data=[str(data)], text_column="body", output=str(output), local=True,
        unknown_below=0.6,
    )  # fmt: skip
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["label"] for row in rows] == ["grain", "unknown"]
    assert [row["abstained"] for row in rows] == [False, True]
    assert rows[0]["score"] >= 0.6 > rows[1]["score"]


def test_bad_rows_are_set_aside_and_too_many_fail_the_run(
    local_ray: None, model: str, tmp_path: Path
) -> None:
    texts = [text_of(row).encode() for row in range(100)]
    texts[7], texts[50], texts[98] = b'""', b"\xff\xfe not utf-8", b"one,too many"
    (tmp_path / "a.csv").write_bytes(b"body\n" + b"\n".join(texts) + b"\n")
    (tmp_path / "b.jsonl").write_text('{"body": "crude"}\n{"body": 3}\n{broken\n')
    settings: dict[str, Any] = {
        "model": model,
        "data": [str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")],
        "text_column": "body",
        "output": str(tmp_path / "labels.parquet"),
    }
    with pytest.raises(DataError, match=r"5 of 103 rows can't be used, more than 1%"):
        predict(**settings)
    assert not (tmp_path / "labels.parquet").exists()
    done = predict(**settings, max_bad_fraction=0.05)
    assert (done.rows, done.reused_rows, done.bad_rows) == (98, 98, 5)
    table = pq.read_table(tmp_path / "labels.parquet")
    assert table["index"].to_pylist() == [i for i in range(100) if i not in (7, 50, 98)] + [0]
    reasons = [
        json.loads(line)["reason"]
        for path in sorted((tmp_path / "labels.parquet.quarantine").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert len(reasons) == 5 and any("UTF-8" in reason for reason in reasons)


def test_mistakes_are_one_sentence(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    data = write_csv(folder / "a.csv", range(30))
    settings: dict[str, Any] = {"model": model, "local": True, "text_column": "body"}
    output = str(tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match=r"write \.csv, \.jsonl, \.parquet or a folder"):
        predict(**settings, data=[str(data)], output="labels.xlsx")
    with pytest.raises(ConfigError, match="lies inside --data"):
        predict(**settings, data=[str(folder)], output=str(folder / "labels.csv"))
    with pytest.raises(ConfigError, match=r"--unknown-below 1\.5"):
        predict(**settings, data=[str(data)], output=output, unknown_below=1.5)
    with pytest.raises(ConfigError, match="--keep label"):
        predict(**settings, data=[str(data)], output=output, keep=["label"])
    with pytest.raises(DataError, match="nowhere"):
        predict(**settings, data=[str(tmp_path / "nowhere.csv")], output=output)
    with pytest.raises(DataError, match="text"):
        predict(**{**settings, "text_column": "text"}, data=[str(data)], output=output)
    # A run that could label nothing does not stand in the way of the corrected one.
    assert predict(**settings, data=[str(data)], output=output).rows == 30
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not yours")
    with pytest.raises(ConfigError, match="holds no run of ours"):
        predict(**settings, data=[str(data)], output=str(tmp_path / "mine"))
