"""What a run keeps of a corpus, a result and a leaderboard."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmembed.embeddings.folder import Folder
from llmembed.pipelines.console import console
from llmembed.pipelines.corpus import described

if TYPE_CHECKING:
    from llmembed.evaluation import Leaderboard, Result, Scores
    from llmembed.experiment import Experiment
    from llmembed.texts import Corpus
    from llmembed.tracking import Run


LEFT_OUT = "left_out.json"
"""A run's file: which texts left out of its fit were answered right."""
WANTED = ("wanted_precision", "wanted_confidence")


def log_corpus(run: Run, experiment: Experiment, corpus: Corpus) -> None:
    """The experiment as params and as a file, the corpus as data set inputs."""
    words = experiment.model_dump(mode="json")
    run.params({key: words[key] for key in ("data", "views", "seeds", *WANTED)})
    run.json(words, "experiment.json")
    for part, examples in corpus.splits.items():
        run.dataset(
            f"{corpus.name}/{part}",
            digest=corpus.digest,
            n_rows=len(examples),
            source=described(experiment.data.source),
            context=part,
        )
    notes = {"partial": corpus.partial, **corpus.notes}
    if corpus.quarantined:
        notes["bad rows"] = f"{corpus.quarantined.count} set aside"
        run.artifact(corpus.quarantined.path)
    if corpus.feedback_quarantined:
        run.artifact(corpus.feedback_quarantined.path)
    run.json({key: value for key, value in notes.items() if value}, "corpus.json")
    run.tags({"llmembed.corpus": corpus.name, "llmembed.partial": corpus.partial or "no"})


def log_result(run: Run, result: Result, corpus: Corpus, *, pictures: bool) -> None:
    """Params, figures, the tables of every task and, if wanted, pictures of one fit."""
    run.params({"method": result.method, "seed": result.seed, **result.settings})
    run.tags({"llmembed.label": result.label, "llmembed.status": result.status})
    run.dataset(corpus.name, corpus.digest, len(corpus.train), corpus.name, "train")
    run.metrics(figures(result))
    run.json(result.to_json(), "result.json")
    if result.reason:
        run.describe(f"**{result.status}:** {result.reason}")
    for task, scores in (result.test or result.valid).items():
        with by_product(f"the table of the classes of {task!r}"):
            rows = [vars(row) for row in scores.per_class]
            run.table(rows, f"per_class/{_plain(task)}.json")
        if scores.pairs is not None and scores.confusion is None:
            with by_product(f"the confusion matrix of {task!r}"):
                _log_confusion(run, task, scores)
        if pictures:
            _log_pictures(run, result, task)


def _log_confusion(run: Run, task: str, scores: Scores) -> None:
    """The matrix of more classes than ``result.json`` holds one of."""
    assert scores.pairs is not None
    with tempfile.TemporaryDirectory() as folder:
        names = [row.name for row in scores.per_class]
        path = scores.pairs.write(Path(folder, f"{_plain(task)}.npz"), names)
        run.artifact(path, "confusion")


def _log_pictures(run: Run, result: Result, task: str) -> None:
    from llmembed.evaluation import confusion_picture, coverage_picture, reliability_picture

    scores = (result.test or result.valid)[task]
    draw: dict[str, Callable[[str], Path]] = {}
    if scores.counted is not None:
        draw["confusion"] = lambda path: confusion_picture(scores, path)
    if task in result.selective:
        curves = {result.label: result.selective[task]}
        draw["coverage"] = lambda path: coverage_picture(curves, path)
    if scores.reliability:
        draw["reliability"] = lambda path: reliability_picture(scores, path)
    with tempfile.TemporaryDirectory() as folder:
        for name, drawn in draw.items():
            with by_product(f"the {name} picture of {task!r}"):
                run.figure(drawn(f"{Path(folder, _plain(task))}_{name}.png"))


@contextmanager
def by_product(what: str) -> Iterator[None]:
    """A fit of hours is not lost with a picture of it: what can't be kept is said instead."""
    from llmembed.tracking.privacy import masked

    try:
        yield
    except Exception as error:
        words = f"{what} was not kept: {type(error).__name__}: {masked(str(error))}"
        console().print(words, style="yellow", markup=False, soft_wrap=True)


def log_leaderboard(run: Run, board: Leaderboard) -> None:
    """The leaderboard as Markdown and JSON, the accuracy-against-energy front as a picture."""
    from llmembed.evaluation import front_picture

    run.json(board.to_json(), "leaderboard.json")
    run.text(board.to_markdown(), "leaderboard.md")
    if any(row.shown for row in board.rows):
        with by_product("the front picture"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "front.png")
            front_picture(board, path)
            run.figure(path)


@dataclass(frozen=True, kw_only=True)
class LeaderboardFile:
    """Where a leaderboard is kept while it grows, and found by ``llmembed report``."""

    folder: Folder
    name: str

    @classmethod
    def new(cls, files: str, corpus: str) -> LeaderboardFile:
        """Below ``files``; names sort by time."""
        name = f"{datetime.now():%Y%m%d-%H%M%S}-{corpus}.json"
        return cls(folder=Folder(files).child("leaderboards"), name=name)

    def write(self, board: Leaderboard) -> None:
        text = json.dumps(board.to_json(), indent=1, ensure_ascii=False)
        self.folder.write(self.name, text.encode())

    @property
    def address(self) -> str:
        base, mark, options = self.folder.address.partition("?")
        return f"{base}/{self.name}{mark}{options}"


def figures(result: Result) -> dict[str, float | None]:
    """The numbers of one fit under the names MLflow shows; units are in the names."""
    found: dict[str, float | None] = {}
    for part, scores in (("valid", result.valid), ("test", result.test)):
        for task, score in scores.items():
            found |= {f"{part}/{task}/{name}": value for name, value in score.metrics.items()}
            found[f"{part}/{task}/invalid_rate"] = score.invalid_rate
    for task, calibration in result.calibration.items():
        found[f"ece/{task}"] = calibration.ece_before
    usage = result.usage
    found |= {
        "valid_mean": result.valid_value(),
        "seconds": usage.seconds,
        "core_seconds": usage.core_seconds,
        "energy_joules": usage.energy_joules,
        "energy_joules_estimated": sum(usage.estimated_joules.values()),
        "cost_usd": result.cost_usd,
        "tokens": float(result.tokens),
        "calls": float(usage.calls),
        "parameters_trained": result.parameters_trained,
    }
    if result.latency is not None:
        found["latency_p50_seconds"] = result.latency.p50_seconds
        found["latency_p99_seconds"] = result.latency.p99_seconds
    return found


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
