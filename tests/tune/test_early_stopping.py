"""Trials ended early: when Ray's schedulers act, and what Optuna hears of it. No cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from llmembed.finetuning import FinetuneConfig
from tune import load_sweep
from tune.ledger import Ledger, Record
from tune.models.space import epochs_of
from tune.models.trial import GRACE_EPOCHS, LONGEST_EPOCHS
from tune.tpe import Tpe
from tune.trials import Trials, _scheduler, from_config

ROWS = 4937
"""Of the training part of Reuters-8; 154.28 batches of 32."""


def scheduler(stopping: str) -> TrialScheduler:
    made = _scheduler(
        Trials(
            trainable=None,
            resources={},
            concurrent=1,
            reuse_actors=False,
            stopping=stopping,
            longest=LONGEST_EPOCHS,
            grace=GRACE_EPOCHS,
        )
    )
    made.set_search_properties("valid_accuracy", "max")
    return made


def told(made: TrialScheduler, trial: Trial, epoch: float, accuracy: float) -> str:
    result = {"epoch": epoch, "valid_accuracy": accuracy, "time_total_s": epoch}
    return made.on_trial_result(None, trial, result)


@pytest.mark.parametrize("evaluations", [1, 2])
def test_asha_stops_at_the_first_epoch_what_falls_behind(evaluations: int) -> None:
    config = FinetuneConfig(batch=32, epochs=3, evaluations=evaluations)
    steps = [n * config.evaluate_every(ROWS) for n in range(1, evaluations + 1)]
    assert all(step * 32 % ROWS for step in steps)  # the batch does not divide the rows
    made = scheduler("asha")
    decisions = []
    for number in range(6):
        trial = Trial("fit", stub=True)
        made.on_trial_add(None, trial)
        for step in steps:
            last = told(made, trial, epochs_of(config, ROWS, step), 0.9 - 0.1 * number)
        decisions.append(last)
    assert decisions == [TrialScheduler.CONTINUE, *[TrialScheduler.STOP] * 5]


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "evaluations"),
    [(4937, 32, 3, 1), (4937, 32, 9, 1), (4937, 64, 3, 2), (11514, 32, 9, 1), (50, 32, 5, 1),
     (20, 32, 4, 1), (4947, 32, 3, 1)],
)  # fmt: skip
def test_readings_of_validation_come_at_whole_epochs(rows, batch, epochs, evaluations) -> None:
    config = FinetuneConfig(batch=batch, epochs=epochs, evaluations=evaluations)
    every, last = config.evaluate_every(rows), config.steps(rows)
    steps = [*range(every, last + 1, every)]
    told = [epochs_of(config, rows, step) for step in steps]
    assert told == [n / evaluations for n in range(1, len(steps) + 1)]
    # Transformers reads once more at the last step, where that is another one.
    assert epochs_of(config, rows, last) >= told[-1]
    if rows / batch > 10:
        assert epochs_of(config, rows, last) == epochs


def test_parts_of_an_epoch_stay_parts() -> None:
    config = FinetuneConfig(batch=32, epochs=2.5)
    assert epochs_of(config, ROWS, 77) == 0.5
    assert epochs_of(config, ROWS, config.steps(ROWS)) == pytest.approx(2.5, abs=0.01)
    short = FinetuneConfig(batch=32, max_steps=10)
    assert epochs_of(short, ROWS, 10) == 10 * 32 / ROWS


# What Optuna hears ------------------------------------------------------------------------


def searcher(ledger: Ledger, objectives: int) -> Tpe:
    def values(configuration: Any) -> list[float] | None:
        own = ledger.records.get(f"{configuration.id}-0")
        return None if own is None else [0.9, 5.0][:objectives]

    directions = ("maximize", "minimize")[:objectives]
    space = load_sweep("encoder").training_space()
    return Tpe(space, ledger, values, count=9, seeds=1, directions=directions, seed=0)


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_trial_that_was_stopped_is_pruned_and_one_that_ended_complete(
    tmp_path: Path, objectives: int
) -> None:
    ledger = Ledger.create(tmp_path / "sweep", {})
    made = searcher(ledger, objectives)
    for trial in ("stopped", "ended", "died"):
        [planned] = from_config(made.suggest(trial))
        for accuracy in (0.3, 0.4):
            made.on_trial_result(trial, {"epoch": 1, "valid_accuracy": accuracy})
        if trial == "stopped":  # Ray Tune hands the last one over with the end alone
            made.on_trial_complete(trial, {"epoch": 3, "valid_accuracy": 0.5})
            history, figures = (0.3, 0.4, 0.5), {"valid_accuracy": 0.5}
            ledger.write(
                Record(planned=planned, status="stopped", figures=figures, history=history)
            )
        elif trial == "ended":
            ledger.write(Record(planned=planned, status="ok", figures={"valid_accuracy": 0.9}))
            made.on_trial_complete(trial, {"epoch": 3, "valid_accuracy": 0.9, "record": {}})
        else:
            made.on_trial_complete(trial, error=True)
    states = [trial.state.name for trial in made._study.trials]
    assert states == ["PRUNED", "COMPLETE", "FAIL"]
    pruned, complete, _ = made._study.trials
    assert complete.values == [0.9, 5.0][:objectives]
    on_the_way = {1: 0.3, 2: 0.4, 3: 0.5} if objectives == 1 else {}
    assert pruned.intermediate_values == on_the_way
    # A sweep that goes on tells its past in the same words, and is sampled further.
    again = searcher(Ledger(ledger.place), objectives)
    assert [trial.state.name for trial in again._study.trials] == states
    assert again._study.trials[0].intermediate_values == on_the_way
    again._study.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=1)
    assert from_config(again.suggest("next"))[0].configuration
