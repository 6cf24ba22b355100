"""The contract every approach stands behind: what goes in, what comes out, who does the work.

``Method.fit`` turns labelled texts into a ``Classifier``; a ``Classifier`` turns texts into one
``Prediction`` per task. Neither knows where it runs: a ``Runtime`` carries work to actors (or to
this process), a ``Reporter`` carries metrics to whoever listens (MLflow, Ray Tune, nobody).

Letters in shapes: N texts, W words of all texts together, B batch, T tokens, L depths, D width,
V views, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from llmembed.usage import Usage as Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Views = Mapping[str, npt.NDArray[Any]]  # name -> (N, L, D)
    from llmembed.sharding import Sharding

Kind = Literal["single", "multi", "tokens"]
UNKNOWN = "unknown"
"""The answer of a classifier that abstains, below a threshold."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question asked of every text.

    ``single``: exactly one of the classes (softmax). ``multi``: any number of them (sigmoid).
    ``tokens``: one BIO tag for each word.

    How it is judged and decided: ``metric``, by which choices are made, a name of
    ``llmembed.metrics`` (None: the default of the kind). ``costs``, only for ``single``: C rows of
    the truth, C columns of the answer; the answer is then the one of least expected cost.
    ``thresholds``, only for ``multi``: the score (C,) that each class must reach (None: 1/2).
    """

    name: str
    classes: tuple[str, ...]
    kind: Kind = "single"
    metric: str | None = None
    costs: tuple[tuple[float, ...], ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Without what is None."""
        told: dict[str, Any] = {
            "name": self.name,
            "classes": list(self.classes),
            "kind": self.kind,
            "metric": self.metric,
            "costs": self.costs and [list(row) for row in self.costs],
            "thresholds": self.thresholds and list(self.thresholds),
        }
        return {key: value for key, value in told.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        costs, thresholds = data.get("costs"), data.get("thresholds")
        return cls(
            name=data["name"],
            classes=tuple(data["classes"]),
            kind=data["kind"],
            metric=data.get("metric"),
            costs=costs and tuple(tuple(row) for row in costs),
            thresholds=thresholds and tuple(thresholds),
        )


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N labelled texts.

    ``labels`` holds one array per task, of indices into ``Task.classes``:
    ``single`` int64 (N,); ``multi`` bool (N, C); ``tokens`` int64 (W,), the words of all texts in
    a row, text by text. ``words`` are the words of each text, given only for ``tokens``.
    """

    texts: Sequence[str]
    labels: Mapping[str, npt.NDArray[Any]]
    words: Sequence[Sequence[str]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each text's words start in a flat (W,) array, int64 (N + 1,)."""
        import numpy as np

        lengths = [len(words) for words in self.words or [()] * len(self)]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def select(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Examples:
        """The examples at ``rows``, in that order."""
        import numpy as np

        index = np.asarray(rows, dtype=np.int64)
        labels: dict[str, npt.NDArray[Any]] = {}
        offsets = self.offsets if self.words is not None else None
        for name, values in self.labels.items():
            if offsets is not None and len(values) == offsets[-1] != len(self):
                pieces = [values[offsets[i] : offsets[i + 1]] for i in index]
                labels[name] = np.concatenate(pieces) if pieces else values[:0]
            else:
                labels[name] = values[index]
        words = None if self.words is None else [self.words[i] for i in index]
        return Examples(texts=[self.texts[i] for i in index], labels=labels, words=words)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answers of one task.

    ``labels``: as in ``Examples.labels``, -1 where an answer could not be read (``single``,
    ``tokens``). ``scores``: float32 (N, C) in [0, 1], for ``tokens`` (W, C), or None where the
    method has none. ``invalid``: bool (N,). ``offsets``: int64 (N + 1,), only for ``tokens``.
    ``unanswered``: bool (N,), the invalid rows to which no answer was ever given (an endpoint was
    away), so that they say nothing of the classifier; None where all were answered.
    """

    labels: npt.NDArray[Any]
    scores: npt.NDArray[np.float32] | None
    invalid: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64] | None = None
    unanswered: npt.NDArray[np.bool_] | None = None


def unanswered_rows(predictions: Mapping[str, Prediction]) -> npt.NDArray[np.bool_]:
    """The rows, bool (N,), that some task of ``predictions`` got no answer to."""
    import numpy as np

    found = np.zeros(len(next(iter(predictions.values())).invalid), dtype=np.bool_)
    for each in predictions.values():
        if each.unanswered is not None:
            found |= each.unanswered
    return found


class Reporter(Protocol):
    """Takes metrics while something is being fitted."""

    def report(self, metrics: Mapping[str, float], *, step: int) -> None: ...


class Silent:
    """A reporter nobody listens to."""

    def report(self, metrics: Mapping[str, float], *, step: int) -> None: ...


Reader = Callable[[], "Iterator[pa.Table]"]
"""Picklable; called in a worker, yields tables of bounded size: one file or one part of it."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of ``Runtime.map_texts``.

    ``make`` is picklable and called once in each worker; what it returns is called with each
    table of up to ``rows`` rows. ``model`` stages hold a model: they run on the actor pool, on a
    GPU where there is one; the others are plain CPU work of their own.
    """

    make: Callable[[], Callable[[pa.Table], pa.Table]]
    rows: int
    model: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What one of the workers of ``Runtime.train`` is told.

    ``report`` takes metrics and, optionally, a folder to keep as a checkpoint. ``resume_from``
    is the last such folder when the work was interrupted.
    """

    rank: int
    world_size: int
    report: Callable[[Mapping[str, float], Path | None], None]
    resume_from: Path | None = None
    deepspeed: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The last metrics reported and folder kept; how the work was shared out, and why. ``run``:
    where all that is kept of it lies, a folder or an ``s3://`` address."""

    metrics: Mapping[str, float]
    folder: Path | None
    why: str = ""
    run: str | None = None


class Runtime(Protocol):
    """Where work is done: actors of a Ray cluster, or this process."""

    @property
    def files(self) -> str:
        """Folder or ``s3://`` address under which stores are kept."""
        ...

    @property
    def machines(self) -> int:
        """On how many its workers may stand."""
        ...

    def map_texts(
        self,
        inputs: pa.Table | Sequence[Reader],
        stages: Sequence[Stage],
        *,
        label: str,
    ) -> Iterator[pa.Table]:
        """Send rows through ``stages`` on workers; yields what the last stage returns, as it
        comes, in no order (so rows carry keys). Raises ``WorkerError`` when a worker fails for
        good."""
        ...

    def train(
        self,
        worker: Callable[[WorkerContext], None],
        *,
        workers: int = 1,
        name: str = "train",
        sharding: Sharding | None = None,
        listen: Callable[[Mapping[str, float]], None] | None = None,
    ) -> Trained:
        """Run ``worker`` on ``workers`` workers that may talk to each other, or on as many and
        with DeepSpeed as ``sharding`` says. ``listen`` hears here what the first one reports."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """What every fit ends in. Loaded again by ``llmembed.methods.load(folder)``."""

    @property
    def method(self) -> str: ...

    @property
    def tasks(self) -> tuple[Task, ...]: ...

    @property
    def fit_usage(self) -> Usage:
        """What fitting took, extraction of the training and validation texts included."""
        ...

    @property
    def parameters_trained(self) -> int: ...

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        """One prediction per task. With a runtime the embedding store and the actors are used,
        without one this process does the work."""
        ...

    def save(self, folder: Path) -> None:
        """Write safetensors and JSON; a frozen backbone is referenced, never copied."""
        ...


@runtime_checkable
class OverBackbones(Protocol):
    """A classifier over frozen backbones also names them and answers from their ready views, so
    that serving can place backbones apart and share them."""

    @property
    def backbones(self) -> Mapping[str, Any]:
        """View name -> the ``llmembed.backbones.View`` it is read from."""
        ...

    def predict_views(self, views: Views, texts: Sequence[str]) -> dict[str, Prediction]: ...

    def features_of_views(self, views: Views, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """What the head sees, float32 (N, F)."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A classifier that says how many tokens a text has, and how many of them it reads."""

    def token_counts(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Full and kept, int64 (N,) each; kept is less where a text is cut."""
        ...


class Method(Protocol):
    """One rival on the leaderboard."""

    @property
    def name(self) -> str: ...

    def seeded(self, seed: int) -> Method:
        """The same method with another seed; several seeds are several fits."""
        ...

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> Classifier:
        """Fit on ``train``, choose on ``valid``; one classifier answers all ``tasks``. Raises
        ``UnsupportedError`` for a kind of task the method can't do."""
        ...
