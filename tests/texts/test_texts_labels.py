"""Labels of every kind, through the same door as a user's: ``load_corpus``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from texts_reading import ROWS, load, pairs, quarantined, write

from llmembed.errors import DataError


def test_json_labels_that_change_their_type(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    labels = [1, "1", 2, "two", True, 2.0] * 20
    path.write_text(
        "".join(json.dumps({"text": f"t{i}", "label": v}) + "\n" for i, v in enumerate(labels))
    )
    assert {c for _, c in pairs(load(path, tmp_path))} == {"1", "2", "two", "true"}


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
    with pytest.raises(DataError, match=r"say --multi .* name its kind in data\.kinds"):
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


def test_class_names_of_the_hub_are_used(tmp_path: Path) -> None:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
    }
    table = pa.table({"text": [t for t, _ in ROWS], "label": np.arange(200) % 2})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "rows.parquet")
    assert load(tmp_path / "rows.parquet", tmp_path).tasks[0].classes == ("neg", "pos")
