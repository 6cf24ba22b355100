"""One row of a leaderboard: the fits of a method that differ in seed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from llmembed.evaluation.bootstrap import Interval
from llmembed.evaluation.result import STOPPED, Result
from llmembed.metering.prices import JOULES_PER_KWH


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean over seeds; ``sd`` is the sample standard deviation, None of a single fit."""

    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(mean=fmean(values), sd=stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method with its settings. Scores go by task, by its primary metric.

    ``valid_error`` is the standard error of the validation mean, by the texts it is of. ``test`` is
    empty where the corpus has no test; ``interval`` is the mean over seeds of the
    bootstrap bounds. ``seconds``, ``core_seconds`` (of processor time), energy, cost, tokens and
    calls are a fit's, its answers' to the validation and test texts, cached embeddings and answers
    included (of a failed fit: what was done until then); means over seeds. ``status``: ``ok``,
    ``2 of 3 seeds``, ``incomplete: reason``, ``failed: reason`` or ``skipped: reason``.
    """

    label: str
    method: str
    settings: Mapping[str, Any]
    seeds: int
    status: str
    valid: Mapping[str, Spread]
    test: Mapping[str, Spread]
    interval: Mapping[str, Interval]
    valid_mean: Spread | None
    valid_error: float | None
    test_mean: Spread | None
    invalid_rate: float | None
    seconds: float | None
    core_seconds: float | None
    energy_kwh: float | None
    energy_is_estimated: bool
    cost_usd: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    parameters_trained: float | None
    tokens: float | None
    calls: float | None
    machinery_only: bool
    deterministic: bool
    notes: tuple[str, ...]

    @property
    def eligible(self) -> bool:
        """Whether it may win: fitted, on no seed failed or incomplete, on real weights."""
        stopped = self.status.startswith(STOPPED)
        return self.valid_mean is not None and not stopped and not self.machinery_only

    @property
    def valid_bound(self) -> float:
        """The validation mean less its standard error: what a row is chosen by, so that few texts
        do not make a winner."""
        assert self.valid_mean is not None, "an eligible row was scored on validation"
        return self.valid_mean.mean - (self.valid_error or 0.0)

    @property
    def shown(self) -> Mapping[str, Spread]:
        """Test scores; validation scores of a corpus without test."""
        return self.test or self.valid

    @property
    def shown_mean(self) -> Spread | None:
        return self.test_mean or self.valid_mean


def row_of(group: Sequence[Result]) -> Row:
    """One row of the results that differ in seed alone; figures are those of the sound ones, or
    where none is, those that the others left (a collapsed or incomplete fit has scores)."""
    sound = [result for result in group if result.status == "ok"]
    told = sound or [result for result in group if result.status in ("failed", "incomplete")]
    first = group[0]
    valid = _by_task(told, lambda result: result.valid)
    test = _by_task(told, lambda result: result.test)
    tasks = list(told[0].intervals) if told else []
    scored = [result for result in told if result.valid]
    latencies = [result.latency for result in told if result.latency]
    shown = [list((result.test or result.valid).values()) for result in scored]
    notes = dict.fromkeys(note for result in group for note in result.notes)
    trained = [r.parameters_trained for r in told if r.parameters_trained is not None]
    return Row(
        label=first.label,
        method=first.method,
        settings=first.settings,
        seeds=len(sound),
        status=_status(group, sound),
        valid=valid,
        test=test,
        interval={
            task: Interval(
                low=fmean(r.intervals[task].low for r in told if task in r.intervals),
                high=fmean(r.intervals[task].high for r in told if task in r.intervals),
                level=told[0].intervals[task].level,
            )
            for task in tasks
        },
        valid_mean=_mean_over_tasks(scored, lambda result: result.valid),
        valid_error=_mean([e for r in scored if (e := r.valid_error()) is not None]),
        test_mean=_mean_over_tasks(scored, lambda result: result.test),
        invalid_rate=_mean([s.invalid_rate for scores in shown for s in scores]),
        seconds=_mean([result.usage.seconds for result in told]),
        core_seconds=_mean([result.usage.core_seconds for result in told]),
        energy_kwh=_mean([result.usage.energy_joules / JOULES_PER_KWH for result in told]),
        energy_is_estimated=any(result.usage.energy_is_estimated for result in told),
        cost_usd=_mean([result.cost_usd for result in told]),
        latency_p50_ms=_mean([latency.p50_seconds * 1000 for latency in latencies]),
        latency_p99_ms=_mean([latency.p99_seconds * 1000 for latency in latencies]),
        parameters_trained=_mean(trained),
        tokens=_mean([result.tokens for result in told]),
        calls=_mean([result.usage.calls for result in told]),
        machinery_only=any(result.machinery_only for result in group),
        deterministic=first.deterministic,
        notes=tuple(notes),
    )


def _status(group: Sequence[Result], sound: Sequence[Result]) -> str:
    for status in ("failed", "incomplete"):
        if such := [result for result in group if result.status == status]:
            share = f" on {len(such)} of {len(group)} seeds" if len(such) < len(group) else ""
            return f"{status}{share}: {such[0].reason}"
    if not sound:
        return f"skipped: {group[0].reason}"
    return "ok" if len(sound) == len(group) else f"{len(sound)} of {len(group)} seeds"


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _by_task(
    results: Sequence[Result], read: Callable[[Result], Mapping[str, Any]]
) -> dict[str, Spread]:
    tasks = dict.fromkeys(task for result in results for task in read(result))
    return {
        task: Spread.of([read(result)[task].value for result in results if task in read(result)])
        for task in tasks
    }


def _mean_over_tasks(
    results: Sequence[Result], read: Callable[[Result], Mapping[str, Any]]
) -> Spread | None:
    scored = [list(read(result).values()) for result in results if read(result)]
    return Spread.of([fmean(s.value for s in scores) for scores in scored]) if scored else None
