"""Ray Tune: how trials are started and ended, and what the driver hears of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import Callback

from tune.ledger import Planned, Record
from tune.settings import Stopping, Sweep

if TYPE_CHECKING:
    from ray.tune.search import Searcher

OnRecord = Callable[[Record], None]
ASHA_REDUCTION = 3
LOWEST = -1e12


@dataclass(frozen=True, kw_only=True)
class Trials:
    """How a sweep's trials are run. ``trainable``: what each does with its config, a function that
    reports ``epoch``, ``valid_accuracy`` and, for each fit that is over, its ``record``.
    ``resources``: what it holds itself; ``concurrent``: how many at once; ``reuse_actors``: one
    process may do several, one after another. ``stopping``: how poor ones are ended early;
    ``longest``: epochs past which none goes, ``grace``: before which none is stopped. ``again``:
    whether fits of a trial whose process died are to be tried one by one."""

    trainable: Any
    resources: Mapping[str, float]
    concurrent: int
    reuse_actors: bool
    stopping: Stopping
    longest: int
    grace: int
    again: bool = False


def told_of_failed(sweep: Sweep) -> float:
    """What Ray Tune is told that a fit is worth which failed: no fit is worth less, and those that
    are judged by a loss are worth less than 0."""
    return 0.0 if sweep.metric is None and not sweep.costs else LOWEST


def to_config(fits: Sequence[Planned]) -> dict[str, Any]:
    """A trial's config: the fits it makes, as JSON."""
    return {"fits": [fit.to_json() for fit in fits]}


def from_config(config: Mapping[str, Any]) -> list[Planned]:
    return [Planned.from_json(fit) for fit in config["fits"]]


class _Listener(Callback):
    """Hands finished fits to the driver, those of dead and of stopped trials too."""

    def __init__(self, on_record: OnRecord, on_tick: Callable[[int], None], *, again: bool) -> None:
        self._on_record, self._again = on_record, again
        self._on_tick = on_tick
        self._told: dict[str, int] = {}
        self._scores: dict[str, list[float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks, but a resumed sweep starts from the ledger."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._on_tick(sum(1 for trial in trials if trial.status == "RUNNING"))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "record" in result:
            self._told[trial.trial_id] = self._told.get(trial.trial_id, 0) + 1
            self._on_record(Record.from_json(result["record"]))
        elif "valid_accuracy" in result:
            self._scores.setdefault(trial.trial_id, []).append(float(result["valid_accuracy"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial that Tune ended before it had told its fit was stopped early."""
        if trial.trial_id in self._told:
            return
        last = trial.last_result or {}
        for planned in from_config(trial.config):
            self._on_record(
                Record(
                    planned=planned,
                    status="stopped",
                    reason=f"stopped early after epoch {last.get('epoch', 0):g}",
                    figures={
                        "valid_accuracy": float(last.get("valid_accuracy", 0.0)),
                        "epochs": float(last.get("epoch", 0)),
                        "seconds": float(last.get("time_total_s", 0.0)),
                    },
                    history=tuple(self._scores.get(trial.trial_id, ())),
                )
            )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process that died takes its fits with it: those it had not told are recorded, or left
        to be tried again one by one."""
        planned = from_config(trial.config)
        if self._again and len(planned) > 1:
            return
        words = " ".join(_words(trial).split())
        for each in planned[self._told.get(trial.trial_id, 0) :]:
            self._on_record(Record(planned=each, status="failed", reason=words[:500]))


def _words(trial: Any) -> str:
    """Why a trial died, in a sentence."""
    try:
        error = trial.get_pickled_error() or trial.get_error()
    except (OSError, ValueError):
        error = None
    name = type(error).__name__
    if error is None or "Died" in name or "Crash" in name or "OutOfMemory" in name:
        return "the trial's process died: out of memory, or killed"
    return str(error).strip().splitlines()[-1] if str(error).strip() else name


def run_trials(
    jobs: Sequence[Sequence[Planned]] | Searcher,
    trials: Trials,
    *,
    folder: Path,
    count: int,
    on_record: OnRecord,
    on_tick: Callable[[int], None],
) -> None:
    """Run ``jobs``, each the fits of one trial, or ``count`` trials that a searcher suggests.

    Ray is connected already. Ctrl-C raises ``KeyboardInterrupt``.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is ours to handle
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(trials.concurrent))
    scheduler, search = _scheduler(trials), None
    space: dict[str, Any] = {}
    if isinstance(jobs, Sequence):
        space = {"fits": tune.grid_search([to_config(job)["fits"] for job in jobs])}
        count = 1
    else:
        search = jobs
    tuner = tune.Tuner(
        tune.with_resources(trials.trainable, dict(trials.resources)),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="valid_accuracy",
            mode="max",
            num_samples=count,
            search_alg=search,
            scheduler=scheduler,
            max_concurrent_trials=trials.concurrent,
            reuse_actors=trials.reuse_actors,
        ),
        run_config=tune.RunConfig(
            name=f"ray-{len(list(folder.glob('ray-*')))}",
            storage_path=str(folder),
            callbacks=[_Listener(on_record, on_tick, again=trials.again)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    tuner.fit()


def _scheduler(trials: Trials) -> Any:
    if trials.stopping == "asha":
        from ray.tune.schedulers import ASHAScheduler

        return ASHAScheduler(
            time_attr="epoch",
            max_t=trials.longest,
            grace_period=min(trials.grace, trials.longest),
            reduction_factor=ASHA_REDUCTION,
        )
    if trials.stopping == "median":
        from ray.tune.schedulers import MedianStoppingRule

        return MedianStoppingRule(
            time_attr="epoch",
            grace_period=trials.grace,
            min_samples_required=3,
            # It would let others go first where there is little to compare with; a function that
            # is paused begins anew.
            min_time_slice=float("inf"),  # type: ignore[arg-type]
        )
    return None
