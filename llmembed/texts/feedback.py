"""Labels that users corrected, as a server stored them: taken into the training part only.

One JSON object a line, as ``serve/model/feedback.py`` writes it: ``text``, ``task``, ``label`` (a
list for ``multi`` and ``tokens``), ``time``, and ``new_label`` where the class may be a new one.
``feedback_id`` is the id of the request that brought it, ``request_id`` that of the answer it
corrects; by them a correction that came twice, as when a proxy asks again, counts once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import UNKNOWN, Examples, Task
from llmembed.errors import DataError
from llmembed.texts.corpus import Corpus
from llmembed.texts.files import expand
from llmembed.texts.labels import ordered
from llmembed.texts.quarantine import BadRow, Quarantine, QuarantineWriter
from llmembed.texts.spelling import canonical

if TYPE_CHECKING:
    from llmembed.texts.files import DataFile


@dataclass
class _Texts:
    """text (its words joined by single spaces) -> what is known of it."""

    written: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, BadRow] = field(default_factory=dict)


def with_feedback(corpus: Corpus, address: str, *, quarantine_folder: Path) -> Corpus:
    """The corpus with the corrections of the files at ``address`` in its training part.

    A text that stands in train already gets the corrected label there; others are added, which
    needs a label of every task. A text that stands in validation or test is left out. Of several
    corrections of one text the last counts. A label that no row of the corpus has is set aside,
    unless it was sent as a new one. ``notes`` tell how many were taken.

    Raises ``DataError`` when nothing can be read at ``address``.
    """
    held = {
        _key(text) for name, part in corpus.splits.items() if name != "train" for text in part.texts
    }
    place = Path(quarantine_folder) / f"{corpus.name}-feedback.jsonl"
    counts: Counter[str] = Counter()
    with QuarantineWriter(place) as writer:
        texts = _read(corpus, address, held, writer, counts)
        tasks, splits = _with_classes(corpus, texts)
        train, taken = _merged(tasks, splits["train"], texts, writer)
    splits["train"] = train
    counts += taken
    said = [f"{counts['added']} texts added", f"{counts['corrected']} training rows corrected"]
    for what, words in (
        ("held", "left out, their texts stand in valid or test"),
        ("other", "of tasks that are not fitted"),
        ("earlier", "overruled by a later correction"),
        ("twice", "sent twice"),
    ):
        said += [f"{counts[what]} {words}"] if counts[what] else []
    said += [f"{writer.count} bad rows set aside"] if writer.count else []
    quarantined = None
    if writer.count:
        quarantined = Quarantine(
            count=writer.count, path=Path(writer.address), reasons=dict(writer.reasons)
        )
    return corpus.parted(
        splits,
        tasks=tasks,
        feedback_quarantined=quarantined,
        notes={**corpus.notes, "feedback": ", ".join(said), **_fresh(corpus.tasks, tasks)},
    )


def _key(text: str) -> str:
    return " ".join(text.split())


def _read(
    corpus: Corpus,
    address: str,
    held: set[str],
    writer: QuarantineWriter,
    counts: Counter[str],
) -> _Texts:
    """Every row's label, the last of each text and task."""
    tasks = {task.name: task for task in corpus.tasks}
    found = _Texts()
    rows: list[tuple[str, BadRow, Mapping[str, Any]]] = []
    for place, row in _lines(address):
        row = _spelled(row)
        reason = _fault(row, tasks)
        if reason is None:
            assert isinstance(row, dict)
            rows.append((str(row.get("time") or ""), place, row))
        elif reason == "other":
            counts["other"] += 1
        else:
            writer.add([replace(place, reason=reason, row=row)])
    rows.sort(key=lambda entry: entry[0])  # stable: without a time, as they stand
    came: set[str] = set()
    last: dict[tuple[str, str], str] = {}
    for _, place, row in rows:
        key, name = _key(row["text"]), row["task"]
        # One request may bring several corrections, and one answer be corrected again.
        same = json.dumps([row.get("feedback_id"), key, name, row["label"]])
        again = json.dumps([row.get("request_id"), row["label"]])
        if (row.get("feedback_id") and same in came) or (
            row.get("request_id") and last.get((key, name)) == again
        ):
            counts["twice"] += 1
            continue
        came.add(same)
        last[key, name] = again
        if key in held:
            counts["held"] += 1
            continue
        labels = found.labels.setdefault(key, {})
        counts["earlier"] += name in labels
        labels[name] = row["label"]
        found.written[key] = row["text"]
        found.places[key] = replace(place, row=row)
    return found


def _lines(address: str) -> Iterator[tuple[BadRow, Any]]:
    for file in expand(address):
        if file.format != "jsonl":
            raise DataError(f"{file.address}: feedback is stored as .jsonl, not {file.format}")
        yield from _lines_of(file)


def _lines_of(file: DataFile) -> Iterator[tuple[BadRow, Any]]:
    with file.open_stream() as stream:
        content = stream.read()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError:  # half a line, or not UTF-8
            row = line
        yield BadRow(file=file.address, line=number, reason=""), row


def _spelled(row: Any) -> Any:
    """The row with its labels in the one spelling that classes have (see ``spelling``)."""
    label = row.get("label") if isinstance(row, dict) else None
    if isinstance(label, str):
        return {**row, "label": canonical(label)}
    if isinstance(label, list):
        names = [canonical(n) if isinstance(n, str) else n for n in label]
        return {**row, "label": names}
    return row


def _fault(row: Any, tasks: Mapping[str, Task]) -> str | None:
    """Why a row can't be used, ``other`` for a task that is not this corpus's, or None."""
    if not isinstance(row, dict):
        return "not a JSON object"
    text, label, name = row.get("text"), row.get("label"), row.get("task")
    if not isinstance(text, str) or not text.strip():
        return "no text"
    if not isinstance(name, str):
        return "no task"
    if name not in tasks:
        return "other"
    task = tasks[name]
    names = [label] if task.kind == "single" else label
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        return f"no label of the kind that task {name!r} takes"
    if task.kind == "tokens" and len(names) != len(text.split()):
        return f"the number of tags of {name!r} is not the number of words"
    unknown = [n for n in names if n not in task.classes]
    if unknown and row.get("new_label") is not True:
        return f"no row of the data has the label {unknown[0]!r} of {name!r}"
    for new in unknown:
        if not new.isprintable():
            return f"the new label {new!r} of {name!r} is not one line of printable characters"
        if new.lower() == UNKNOWN:
            return f"the new label {new!r} of {name!r} is the word of an answer that abstains"
    return None


def _with_classes(corpus: Corpus, texts: _Texts) -> tuple[tuple[Task, ...], dict[str, Examples]]:
    """The tasks with the new classes of the feedback, and all parts' labels as their indices."""
    splits = corpus.splits
    tasks: list[Task] = []
    for task in corpus.tasks:
        given = [labels[task.name] for labels in texts.labels.values() if task.name in labels]
        names = {n for label in given for n in ([label] if isinstance(label, str) else label)}
        classes = ordered({*task.classes, *names}, task.kind)
        if set(classes) == set(task.classes):
            tasks.append(task)
            continue
        moved = np.array([classes.index(name) for name in task.classes], dtype=np.int64)
        for part, examples in splits.items():
            old = examples.labels[task.name]
            if task.kind == "multi":
                new = np.zeros((len(old), len(classes)), dtype=bool)
                new[:, moved] = old
            else:
                new = moved[old]
            splits[part] = replace(examples, labels={**examples.labels, task.name: new})
        tasks.append(replace(task, classes=classes))
    return tuple(tasks), splits


def _merged(
    tasks: tuple[Task, ...], train: Examples, texts: _Texts, writer: QuarantineWriter
) -> tuple[Examples, Counter[str]]:
    """Train with the labels corrected in place, and the other texts behind it."""
    counts: Counter[str] = Counter()
    at: dict[str, list[int]] = {}
    for index, text in enumerate(train.texts):
        key = _key(text)
        if key in texts.labels:
            at.setdefault(key, []).append(index)
    labels = {name: values.copy() for name, values in train.labels.items()}
    offsets = train.offsets
    added: list[str] = []
    for key, given in texts.labels.items():
        missing = [task.name for task in tasks if task.name not in given]
        if key not in at and missing:
            reason = f"a new text needs a label of {missing[0]!r}, too"
            writer.add([replace(texts.places[key], reason=reason)])
        elif key not in at:
            added.append(key)
            counts["added"] += 1
        for index in at.get(key, ()):
            counts["corrected"] += 1
            for task in tasks:
                if task.name in given:
                    where: Any = index
                    if task.kind == "tokens":
                        where = slice(offsets[index], offsets[index + 1])
                    labels[task.name][where] = _encoded(task, given[task.name])
    for task in tasks:
        new = [_encoded(task, texts.labels[key][task.name]) for key in added]
        if new:
            rows = np.concatenate(new) if task.kind == "tokens" else np.stack(new)
            labels[task.name] = np.concatenate([labels[task.name], rows])
    words = train.words
    if words is not None:
        words = [*words, *(key.split(" ") for key in added)]
    written = [texts.written[key] for key in added]
    return Examples(texts=[*train.texts, *written], labels=labels, words=words), counts


def _encoded(task: Task, label: Any) -> npt.NDArray[Any]:
    if task.kind == "multi":
        return np.array([name in label for name in task.classes])
    if task.kind == "tokens":
        return np.array([task.classes.index(name) for name in label], dtype=np.int64)
    return np.array(task.classes.index(label), dtype=np.int64)


def _fresh(before: tuple[Task, ...], after: tuple[Task, ...]) -> dict[str, str]:
    notes = {}
    for old, new in zip(before, after, strict=True):
        fresh = [name for name in new.classes if name not in old.classes]
        if fresh:
            notes[f"feedback_{old.name}"] = f"classes from feedback alone: {', '.join(fresh)}"
    return notes
