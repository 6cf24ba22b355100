"""Ray Tune: trials that fit what they are handed, and what the driver hears of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import Callback

from tune.data import SharedData
from tune.fitting import fit_alone, fit_grouped
from tune.ledger import Planned, Record
from tune.settings import Sweep
from tune.spaces import Configuration

if TYPE_CHECKING:
    from ray.tune.search import Searcher

OnRecord = Callable[[Record], None]
ASHA_REDUCTION = 3
ASHA_GRACE_EPOCHS = 4


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every trial of a sweep is told; sent once to each node."""

    sweep: Sweep
    data: SharedData
    threads: int | None
    by_epoch: bool


def to_config(fits: Sequence[Planned]) -> dict[str, Any]:
    """A trial's config: the fits it makes, as JSON."""
    return {"fits": [{"configuration": f.configuration.to_json(), "seed": f.seed} for f in fits]}


def from_config(config: Mapping[str, Any]) -> list[Planned]:
    return [
        Planned(configuration=Configuration.from_json(fit["configuration"]), seed=fit["seed"])
        for fit in config["fits"]
    ]


class _Epochs:
    """A ``contract.Reporter`` that tells Ray Tune, which may end the trial."""

    def __init__(self) -> None:
        self.epoch = 0

    def report(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.epoch = step
        tune.report({"epoch": step, "valid_accuracy": metrics["valid_accuracy"]})


def run_trial(config: Mapping[str, Any], *, work: Work) -> None:
    """One trial: its fits one by one, or side by side where there are several of one shape."""
    planned = from_config(config)
    epochs = _Epochs()
    if work.sweep.search.trains_groups and len(planned) > 1:
        records = fit_grouped(planned, work.data, work.sweep.head_of, threads=work.threads)
    else:
        records = (
            fit_alone(
                each,
                work.data,
                work.sweep.head_of(each.configuration),
                reporter=epochs if work.by_epoch and number == 0 else None,
                threads=work.threads,
            )
            for number, each in enumerate(planned)
        )
    for record in records:
        accuracy = record.figures.get("valid_accuracy", 0.0)
        epochs.epoch += 1
        tune.report({"epoch": epochs.epoch, "valid_accuracy": accuracy, "record": record.to_json()})


class _Listener(Callback):
    """Hands finished fits to the driver, those of dead and of stopped trials too."""

    def __init__(self, on_record: OnRecord, on_tick: Callable[[int], None]) -> None:
        self._on_record = on_record
        self._on_tick = on_tick
        self._told: dict[str, int] = {}

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
                    reason=f"stopped early after epoch {last.get('epoch', 0)}",
                    figures={
                        "valid_accuracy": float(last.get("valid_accuracy", 0.0)),
                        "epochs": float(last.get("epoch", 0)),
                        "seconds": float(last.get("time_total_s", 0.0)),
                    },
                )
            )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process that died takes its fits with it: alone it is recorded, a group is left to be
        tried again one by one."""
        planned = from_config(trial.config)
        if len(planned) > 1:
            return
        words = " ".join(_words(trial).split())
        self._on_record(Record(planned=planned[0], status="failed", reason=words[:500]))


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
    work: Work,
    *,
    folder: Path,
    concurrent: int,
    count: int,
    gpus: float,
    on_record: OnRecord,
    on_tick: Callable[[int], None],
) -> None:
    """Run ``jobs``, each the fits of one trial, or ``count`` trials that a searcher suggests.

    Ray is connected already. ``concurrent``: trials at once. Ctrl-C raises ``KeyboardInterrupt``.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is ours to handle
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(concurrent))
    scheduler, search = _scheduler(work.sweep), None
    space: dict[str, Any] = {}
    if isinstance(jobs, Sequence):
        space = {"fits": tune.grid_search([to_config(job)["fits"] for job in jobs])}
        count = 1
    else:
        search = jobs
    trainable = tune.with_parameters(run_trial, work=work)
    resources = {"cpu": 1.0, **({"gpu": gpus} if gpus else {})}
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="valid_accuracy",
            mode="max",
            num_samples=count,
            search_alg=search,
            scheduler=scheduler,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"ray-{len(list(folder.glob('ray-*')))}",
            storage_path=str(folder),
            callbacks=[_Listener(on_record, on_tick)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    tuner.fit()


def _scheduler(sweep: Sweep) -> Any:
    from llmembed.experiment import head_config

    longest = head_config(sweep.head).epochs + 10  # past what a fit reports: it ends by itself
    if sweep.search.stopping == "asha":
        from ray.tune.schedulers import ASHAScheduler

        return ASHAScheduler(
            time_attr="epoch",
            max_t=longest,
            grace_period=min(ASHA_GRACE_EPOCHS, longest),
            reduction_factor=ASHA_REDUCTION,
        )
    if sweep.search.stopping == "median":
        from ray.tune.schedulers import MedianStoppingRule

        return MedianStoppingRule(
            time_attr="epoch", grace_period=ASHA_GRACE_EPOCHS, min_samples_required=3
        )
    return None
