"""What one fit on one data set came to, as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from llmembed.contract import Usage
from llmembed.evaluation.bootstrap import Interval
from llmembed.evaluation.coverage import CoverageCurve, Threshold
from llmembed.evaluation.metrics import Scores
from llmembed.evaluation.paired import Told

Status = Literal["ok", "incomplete", "failed", "skipped"]
STOPPED = ("failed", "incomplete", "skipped")
"""How the status of a row begins that can't win."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of ``predict([text])`` in the evaluating process, in seconds, over ``texts`` texts."""

    p50_seconds: float
    p99_seconds: float
    texts: int


@dataclass(frozen=True, kw_only=True)
class Selective:
    """A task answered only when sure. ``threshold`` was chosen on validation; ``coverage`` and
    ``precision`` are what it gives on test (None without one, or where nothing is answered), with
    the ``interval`` of that precision (Clopper-Pearson, at the threshold's confidence); ``curve``
    is test's."""

    threshold: Threshold
    curve: CoverageCurve
    coverage: float | None = None
    precision: float | None = None
    interval: Interval | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selective:
        return cls(
            **{
                **data,
                "threshold": Threshold(**data["threshold"]),
                "curve": CoverageCurve.from_json(data["curve"]),
                # A leaderboard stored by an earlier version has none.
                "interval": data.get("interval") and Interval(**data["interval"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Temperature fitted on validation, and the calibration error on test (on validation where
    there is no test) before and after; the scores themselves stay as the method gives them."""

    temperature: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method, one corpus, one seed.

    ``valid``, ``test``, ``intervals``, ``selective`` and ``calibration`` go by task, as do
    ``valid_errors``, the standard errors of validation's primary metrics. ``told``: which texts
    left out were answered right; kept while the result is in memory, not in its JSON. ``label``
    names the method with its settings and is the row's name on the leaderboard; ``chosen`` is what
    the fit itself chose on validation. ``folds``: into how many parts the texts were cut, each left
    out once, whose answers are ``valid``'s; 0 of one validation part. ``status`` is ``failed``,
    ``skipped`` or, where some texts never got an answer, ``incomplete``, with a ``reason``; a
    collapsed or incomplete fit keeps its scores. ``partial``: in
    what the corpus falls short of the official data. ``machinery_only``: the method ran on stand-in
    weights, so its figures show that it runs and nothing else. ``fit_usage``: of fitting, or of all
    that was done until it failed; ``valid_usage``: of answering the validation texts where fitting
    did not read them (asked language models); ``predict_usage``: of answering the test texts.
    ``wall_seconds`` of fitting as
    watched here: less than ``fit_usage.seconds`` where embeddings were at hand or actors many.
    """

    method: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    seed: int
    corpus: str
    digest: str
    partial: str | None = None
    machinery_only: bool = False
    deterministic: bool = False
    folds: int = 0
    status: Status = "ok"
    reason: str | None = None
    valid: Mapping[str, Scores] = field(default_factory=dict)
    test: Mapping[str, Scores] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    valid_errors: Mapping[str, float] = field(default_factory=dict)
    selective: Mapping[str, Selective] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    fit_usage: Usage = field(default_factory=Usage)
    valid_usage: Usage = field(default_factory=Usage)
    predict_usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    wall_seconds: float = 0.0
    latency: Latency | None = None
    parameters_trained: int | None = None
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    time: str = ""
    told: Told | None = field(default=None, compare=False, repr=False)

    @property
    def usage(self) -> Usage:
        """Of fitting, choosing on validation and answering the test texts."""
        return self.fit_usage + self.valid_usage + self.predict_usage

    @property
    def tokens(self) -> int:
        """Processed by our models and by endpoints."""
        usage = self.usage
        return usage.tokens + usage.prompt_tokens + usage.completion_tokens

    def valid_value(self) -> float | None:
        """Mean over tasks of the primary metric on validation: what methods are chosen by."""
        values = [scores.value for scores in self.valid.values()]
        return sum(values) / len(values) if values else None

    def valid_error(self) -> float | None:
        """The standard error of ``valid_value``, of tasks that err independently."""
        errors = list(self.valid_errors.values())
        if not errors or len(errors) < len(self.valid):
            return None
        return math.sqrt(sum(error**2 for error in errors)) / len(errors)

    def to_json(self) -> dict[str, Any]:
        """``from_json`` gives an equal result back."""
        names = [item.name for item in fields(self) if item.name != "told"]
        plain = {name: getattr(self, name) for name in names}
        for name in ("intervals", "selective", "calibration"):
            plain[name] = {task: asdict(value) for task, value in plain[name].items()}
        for name in ("valid", "test"):
            plain[name] = {task: value.to_json() for task, value in plain[name].items()}
        for name in ("fit_usage", "valid_usage", "predict_usage"):
            plain[name] = plain[name].to_json()
        plain["latency"] = self.latency and asdict(self.latency)
        for name in ("settings", "chosen", "versions", "valid_errors"):
            plain[name] = dict(plain[name])
        plain["notes"] = list(self.notes)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        read = {
            "valid": _each(Scores.from_json, data["valid"]),
            "test": _each(Scores.from_json, data["test"]),
            "intervals": _each(lambda value: Interval(**value), data["intervals"]),
            "selective": _each(Selective.from_json, data["selective"]),
            "calibration": _each(lambda value: Calibration(**value), data["calibration"]),
            "fit_usage": Usage.from_json(data["fit_usage"]),
            # A leaderboard stored by an earlier version has none.
            "valid_usage": Usage.from_json(data.get("valid_usage", {})),
            "predict_usage": Usage.from_json(data["predict_usage"]),
            "latency": data["latency"] and Latency(**data["latency"]),
            "notes": tuple(data["notes"]),
        }
        return cls(**{**data, **read})


def _each(make: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {task: make(value) for task, value in values.items()}
