"""Predictions in the words of an answer: labels with scores, best first; tagged words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from llmembed.contract import UNKNOWN, Prediction, Task
from serve.errors import NoFeaturesError, RequestError
from serve.model.seats import Answer, Seat

_WORD = re.compile(r"\S+")


def tasks_of(seat: Seat, asked: str | list[str] | None) -> list[Task]:
    """The tasks a request asks for; all of them where it names none. Raises ``RequestError``."""
    known = {task.name: task for task in seat.tasks}
    names = list(known) if asked is None else [asked] if isinstance(asked, str) else asked
    for name in names:
        if name not in known:
            raise RequestError(
                f"{seat.key} has no task {name[:80]!r}; it answers {', '.join(known)}"
            )
    return [known[name] for name in names]


def only_task(seat: Seat, asked: str | None) -> Task:
    """The one task of an interface that answers one, of texts as a whole."""
    task = tasks_of(seat, asked)[0]
    if task.kind == "tokens":
        raise NoFeaturesError(f"task {task.name!r} tags words: ask for it at /predict")
    return task


def labels_of(
    task: Task,
    prediction: Prediction,
    row: int,
    text: str,
    *,
    raw: bool = False,
    unknown_below: float | None = None,
) -> list[dict[str, Any]]:
    """``[{label, score}]`` of text ``row``, the answer of ``single`` first, then the best; for
    ``tokens`` its tagged words.

    ``raw``: the logarithm of the odds (``multi``) or of the probability, which softmax turns back.
    An answer that could not be read is an empty list; a method without scores gives its label with
    ``score`` null.
    """
    if task.kind == "tokens":
        return _words(task, prediction, row, text)
    if prediction.invalid[row]:
        return []
    if prediction.scores is None:
        if task.kind == "multi":
            chosen = [task.classes[i] for i in prediction.labels[row].nonzero()[0]]
        else:
            chosen = [task.classes[int(prediction.labels[row])]]
        return [{"label": name, "score": None} for name in chosen]
    scores = prediction.scores[row].tolist()
    # Under costs the answer may not be the class of the largest score; it stands first.
    first = int(prediction.labels[row]) if task.kind == "single" else -1
    order = sorted(range(len(scores)), key=lambda i: (i != first, -scores[i]))
    found = [
        {"label": task.classes[i], "score": _raw(scores[i], task.kind) if raw else scores[i]}
        for i in order
    ]
    if unknown_below is not None and task.kind == "single" and scores[order[0]] < unknown_below:
        # A class may be called so as well: this answer is told from it by its third field.
        found.insert(0, {"label": UNKNOWN, "score": found[0]["score"], "abstained": True})
    return found


def unknown_below(seat: Seat, task: Task, asked: bool | float) -> float | None:
    """The threshold a request asks for: its own number, or by ``true`` the one chosen on
    validation, None where none was."""
    if asked is False:
        return None
    return seat.thresholds.get(task.name) if asked is True else float(asked)


def check_unknown(seat: Seat, tasks: Sequence[Task], asked: bool | float) -> None:
    """Raise ``RequestError`` where ``true`` asks for a threshold and no task has one."""
    if asked is True and not any(task.name in seat.thresholds for task in tasks):
        names = ", ".join(repr(task.name) for task in tasks)
        raise RequestError(f"no threshold was chosen on validation for {names}: send a number")


def _raw(score: float, kind: str) -> float:
    tiny = 1e-30
    if kind == "multi":
        return math.log(max(score, tiny)) - math.log(max(1 - score, tiny))
    return math.log(max(score, tiny))


def _words(task: Task, prediction: Prediction, row: int, text: str) -> list[dict[str, Any]]:
    """The fields of Hugging Face's token classification: entity, score, index, word, start, end."""
    assert prediction.offsets is not None
    first, last = int(prediction.offsets[row]), int(prediction.offsets[row + 1])
    places = list(_WORD.finditer(text))
    assert len(places) == last - first, "one tag for each word"
    found = []
    for index, place in enumerate(places):
        tag = int(prediction.labels[first + index])
        scores = prediction.scores
        found.append(
            {
                "entity": task.classes[tag] if tag >= 0 else None,
                "score": None if scores is None or tag < 0 else float(scores[first + index][tag]),
                "index": index,
                "word": place.group(),
                "start": place.start(),
                "end": place.end(),
            }
        )
    return found


def timing_headers(answer: Answer, total_seconds: float) -> Mapping[str, str]:
    """Text Embeddings Inference's headers, in milliseconds, and ours."""
    timing, usage = answer.timing, answer.timing.usage
    return {
        "x-compute-type": "gpu" if any(d.startswith("gpu") for d in _devices(answer)) else "cpu",
        "x-compute-characters": str(answer.characters),
        "x-compute-tokens": str(int(answer.tokens.sum())),
        "x-total-time": f"{total_seconds * 1000:.1f}",
        "x-tokenization-time": f"{timing.tokenise_seconds * 1000:.1f}",
        "x-queue-time": f"{timing.queue_seconds * 1000:.1f}",
        "x-inference-time": f"{timing.inference_seconds * 1000:.1f}",
        "x-energy-joules": f"{usage.energy_joules:.4g}",
        "x-energy-estimated": "true" if usage.energy_is_estimated else "false",
        "x-model": quote(answer.seat.label, safe="/@:+ "),  # headers are Latin-1 at most
    }


def _devices(answer: Answer) -> list[str]:
    usage = answer.timing.usage
    return [*usage.measured_joules, *usage.estimated_joules]
