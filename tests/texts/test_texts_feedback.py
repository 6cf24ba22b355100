"""Corrected labels as training data: taken once, never into validation or test, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from llmembed.contract import Examples, Task
from llmembed.errors import DataError
from llmembed.texts import Columns, Corpus, CorpusSource, digest_of, load_corpus, with_feedback


def corpus_of(tasks: tuple[Task, ...], splits: dict[str, Examples]) -> Corpus:
    given = {name: part for name, part in splits.items() if part is not None}
    return Corpus(name="small", tasks=tasks, digest=digest_of(tasks, given), **splits)


@pytest.fixture()
def corpus(tmp_path: Path) -> Corpus:
    """100 texts of two classes from a csv whose columns have names of their own."""
    path = tmp_path / "data.csv"
    path.write_text("body,kind\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(100)))
    source = CorpusSource.files(
        path, columns=Columns(text="body", labels={"kind": "kind"}), test_fraction=0.2
    )
    return load_corpus(source, quarantine_folder=tmp_path)


def stored(folder: Path, rows: Iterable[dict | bytes], name: str = "r-0.jsonl") -> str:
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / name).write_bytes(b"\n".join(lines) + b"\n")
    return str(folder)


def row(text: str, label: object, task: str = "kind", at: int = 0, **more: object) -> dict:
    return {"text": text, "task": task, "label": label, "time": f"2027-01-01T00:00:{at:02}", **more}


def labels(examples: Examples, task: Task) -> dict[str, str]:
    found = examples.labels[task.name]
    return {t: task.classes[i] for t, i in zip(examples.texts, found, strict=True)}


def test_new_texts_and_corrections_go_into_train_only(corpus: Corpus, tmp_path: Path) -> None:
    old, held, tested = corpus.train.texts[0], corpus.valid.texts[0], corpus.test.texts[0]
    was = labels(corpus.train, corpus.tasks[0])[old]
    now = {"a": "b", "b": "a"}[was]
    place = stored(
        tmp_path / "f",
        [
            row("brand new", "a"),
            row(old, now),
            row(held, "a"),
            row(f" {tested.replace(' ', '  ')}\n", "b"),  # only white space is different
        ],
    )
    grown = with_feedback(corpus, place, quarantine_folder=tmp_path)
    found = labels(grown.train, grown.tasks[0])
    assert found == {**labels(corpus.train, corpus.tasks[0]), "brand new": "a", old: now}
    assert len(grown.train) == len(corpus.train) + 1
    for part in ("valid", "test"):
        assert list(grown.splits[part].texts) == list(corpus.splits[part].texts)
        kept = grown.splits[part].labels["kind"] == corpus.splits[part].labels["kind"]
        assert np.all(kept)
    assert grown.digest != corpus.digest
    assert grown.notes["feedback"] == (
        "1 texts added, 1 training rows corrected, 2 left out, their texts stand in valid or test"
    )


def test_the_last_correction_counts_whichever_file_it_is_in(corpus, tmp_path: Path) -> None:
    stored(tmp_path / "f", [row("t", "a", at=9)], "a.jsonl")
    place = stored(tmp_path / "f", [row("t", "b", at=5), row("t", "b", at=1)], "z.jsonl")
    grown = with_feedback(corpus, place, quarantine_folder=tmp_path)
    assert labels(grown.train, grown.tasks[0])["t"] == "a"
    assert "2 overruled by a later correction" in grown.notes["feedback"]


def test_bad_rows_are_set_aside_with_line_and_reason(corpus, tmp_path: Path) -> None:
    bad = [
        b'{"text": "half a',
        row("t1", "corn"),
        row("", "a"),
        row("t2", ["a"]),
        row("t3", "a", task="other"),
        {"text": "t4", "label": "a"},
        b"\xff",
    ]
    place = stored(tmp_path / "f", [*bad, row("fine", "a")])
    grown = with_feedback(corpus, place, quarantine_folder=tmp_path / "q")
    assert len(grown.train) == len(corpus.train) + 1
    aside = grown.feedback_quarantined
    assert aside is not None
    lines = [json.loads(line) for line in aside.path.read_text().splitlines()]
    assert [(line["line"], line["reason"]) for line in lines] == [
        (1, "not a JSON object"),
        (2, "no row of the data has the label 'corn' of 'kind'"),
        (3, "no text"),
        (4, "no label of the kind that task 'kind' takes"),
        (6, "no task"),
        (7, "not a JSON object"),
    ]
    assert "1 of tasks that are not fitted, 6 bad rows set aside" in grown.notes["feedback"]


def test_a_class_sent_as_new_joins_the_classes(corpus, tmp_path: Path) -> None:
    place = stored(tmp_path / "f", [row("corn", "aa", new_label=True)])
    grown = with_feedback(corpus, place, quarantine_folder=tmp_path)
    assert grown.tasks[0].classes == ("a", "aa", "b")
    for part, examples in corpus.splits.items():
        before = labels(examples, corpus.tasks[0])
        after = labels(grown.splits[part], grown.tasks[0])
        assert {text: after[text] for text in before} == before
    assert grown.notes["feedback_kind"] == "classes from feedback alone: aa"


@pytest.mark.parametrize("label", ["two\nlines", "nul\x00", "\x1b[2J", "Unknown"])
def test_a_new_class_is_one_printable_line_and_no_abstention(
    label: str, corpus: Corpus, tmp_path: Path
) -> None:
    place = stored(tmp_path / "f", [row("corn", label, new_label=True), row("fine", "a")])
    grown = with_feedback(corpus, place, quarantine_folder=tmp_path)
    assert grown.tasks[0].classes == ("a", "b")
    assert grown.feedback_quarantined is not None and grown.feedback_quarantined.count == 1
    [reason] = grown.feedback_quarantined.reasons
    assert "abstains" in reason if label == "Unknown" else "printable" in reason


def test_a_correction_has_its_class_in_any_spelling(tmp_path: Path) -> None:
    texts = Examples(texts=["x", "y"], labels={"kind": np.array([0, 1])})
    task = Task(name="kind", classes=("caf\u00e9", "tea"))
    small = corpus_of((task,), {"train": texts, "valid": texts.select([1]), "test": None})
    place = stored(tmp_path / "f", [row("new", "cafe\u0301"), row("other", "tea\u200b")])
    grown = with_feedback(small, place, quarantine_folder=tmp_path)
    assert grown.feedback_quarantined is None
    assert labels(grown.train, task)["new"] == "caf\u00e9"
    assert labels(grown.train, task)["other"] == "tea"


def test_several_tasks_of_all_kinds(tmp_path: Path) -> None:
    tasks = (
        Task(name="s", classes=("x", "y")),
        Task(name="m", classes=("p", "q"), kind="multi"),
        Task(name="t", classes=("O", "B-z"), kind="tokens"),
    )
    words = [["one", "two"], ["three"], ["four", "five", "six"]]
    every = Examples(
        texts=[" ".join(w) for w in words],
        labels={
            "s": np.array([0, 1, 0]),
            "m": np.array([[True, False], [False, True], [True, True]]),
            "t": np.array([0, 1, 0, 1, 1, 0]),
        },
        words=words,
    )
    splits = {"train": every.select([0, 1]), "valid": every.select([2]), "test": every.select([2])}
    corpus = corpus_of(tasks, splits)
    place = stored(
        tmp_path / "f",
        [
            row("one two", ["B-z", "O"], "t"),
            row("one two", [], "m"),
            row("new  text", "y", "s"),
            row("new text", ["q"], "m"),
            row("new text", ["O", "B-z"], "t"),
            row("not whole", "y", "s"),
            row("not whole", ["O"], "t"),
        ],
    )
    grown = with_feedback(corpus, place, quarantine_folder=tmp_path)
    assert len(grown.train) == 3
    assert grown.train.words[2] == ["new", "text"]
    assert grown.train.labels["s"].tolist() == [0, 1, 1]
    assert grown.train.labels["m"].tolist() == [[False, False], [False, True], [False, True]]
    assert grown.train.labels["t"].tolist() == [1, 0, 0, 0, 1]
    reasons = grown.feedback_quarantined.reasons
    assert reasons["a new text needs a label of 'm', too"] == 1
    assert reasons["the number of tags of 't' is not the number of words"] == 1


def test_nothing_there_is_one_sentence(corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        with_feedback(corpus, str(tmp_path / "gone"), quarantine_folder=tmp_path)


def test_a_correction_that_came_twice_counts_once(corpus: Corpus, tmp_path: Path) -> None:
    ids = {"request_id": "r1", "feedback_id": "f1"}
    place = stored(
        tmp_path / "f",
        [
            row("overtaken", "a", at=1, **ids),
            row("overtaken", "b", at=2, request_id="r1", feedback_id="f2"),
            row("overtaken", "a", at=3, **ids),  # the first again, late: it overrules nothing
            row("retried", "b", at=1, request_id="r2", feedback_id="f3"),
            row("retried", "b", at=2, request_id="r2", feedback_id="f4"),
            row("mind changed twice", "a", at=1, request_id="r3", feedback_id="f5"),
            row("mind changed twice", "b", at=2, request_id="r3", feedback_id="f6"),
            row("mind changed twice", "a", at=3, request_id="r3", feedback_id="f7"),
            row("without ids", "a", at=1),
            row("without ids", "a", at=2),
            row("of one batch", "a", at=1, **ids),
        ],
    )
    merged = with_feedback(corpus, place, quarantine_folder=tmp_path)
    found = labels(merged.train, merged.tasks[0])
    assert found["overtaken"] == "b"
    assert found["retried"] == "b"
    assert found["mind changed twice"] == "a"
    assert found["of one batch"] == "a"
    assert "2 sent twice" in merged.notes["feedback"]
    assert "5 texts added" in merged.notes["feedback"]
