"""Optuna's tree-structured Parzen estimator behind Ray Tune's searcher.

Our own, and not Ray's, for three reasons: dimensions that do not matter to a configuration are not
asked for (σ of a fusion without one), a configuration suggested twice is answered from what is
known and not run again, and a sweep that was killed goes on by being told its past.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from ray.tune.search import Searcher

from tune.ledger import AnyConfiguration, Ledger, Planned
from tune.space import Range, Walked
from tune.trials import to_config

TRIES = 200
Values = Callable[[AnyConfiguration], "list[float] | None"]
"""The objectives of a configuration that is known, None for one that failed or is not."""


class Tpe(Searcher):
    """Suggests up to ``count`` new configurations, ``seeds`` fits each."""

    def __init__(
        self,
        space: Walked[Any],
        ledger: Ledger,
        values: Values,
        *,
        count: int,
        seeds: int,
        directions: Sequence[Literal["minimize", "maximize"]],
        seed: int,
    ) -> None:
        import optuna

        super().__init__(metric="valid_accuracy", mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._ledger, self._values = space, ledger, values
        self._left, self._seeds = count, seeds
        self._study = optuna.create_study(
            directions=directions, sampler=optuna.samplers.TPESampler(seed=seed)
        )
        self._asked: dict[str, tuple[Any, AnyConfiguration]] = {}
        self._heard: dict[str, list[float]] = {}
        self._points = ledger.place.child("points")
        self._seen: set[str] = set()
        self._replay()

    def _replay(self) -> None:
        """Tell the study what earlier runs of this sweep tried."""
        done = {record.planned.configuration.id for record in self._ledger.records.values()}
        for point in _points(self._ledger):
            self._study.enqueue_trial(point)
            trial = self._study.ask()
            made = self._made(trial)
            if made is None or made.id not in done or made.id in self._seen:
                self._study.tell(trial, state=_failed())
                continue
            self._seen.add(made.id)
            self._tell(trial, made)
            self._left -= 1

    def _made(self, trial: Any) -> AnyConfiguration | None:
        """Ask for what matters, in an order in which what decides comes first."""
        point: dict[str, Any] = {}
        named = self._space.dimensions
        for name in self._space.order():
            if not self._space.matters(name, point):
                continue
            values = named[name]
            if isinstance(values, Range):
                if values.whole:
                    low, high = int(values.low), int(values.high)
                    point[name] = trial.suggest_int(name, low, high, log=values.log)
                else:
                    drawn = trial.suggest_float(name, values.low, values.high, log=values.log)
                    point[name] = float(f"{drawn:.6g}")
            elif len(values) == 1:
                point[name] = values[0]
            else:
                point[name] = values[trial.suggest_categorical(name, list(range(len(values))))]
        made: AnyConfiguration | None = self._space.canonical(point)
        return made

    def suggest(self, trial_id: str) -> Any:
        if self._left <= 0:
            return Searcher.FINISHED
        for _ in range(TRIES):
            trial = self._study.ask()
            made = self._made(trial)
            if made is None:
                self._study.tell(trial, state=_failed())
            elif made.id in self._seen:
                self._tell(trial, made)
            else:
                self._seen.add(made.id)
                self._asked[trial_id] = (trial, made)
                self._left -= 1
                name = f"{time.time_ns():020d}-{made.id}.json"
                self._points.write(name, json.dumps(trial.params).encode())
                return to_config(
                    [Planned(configuration=made, seed=seed) for seed in range(self._seeds)]
                )
        return Searcher.FINISHED  # nothing new to be found

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        if "record" not in result and result.get("valid_accuracy") is not None:
            self._heard.setdefault(trial_id, []).append(float(result["valid_accuracy"]))

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        trial, made = self._asked.pop(trial_id)
        if result is not None:
            self.on_trial_result(trial_id, result)
        heard = self._heard.pop(trial_id, [])
        if error or f"{made.id}-0" in self._ledger.records:
            heard = []
        # Ray Tune says so before the ledger hears of a trial that was stopped early.
        self._tell(trial, made, stopped=heard)

    def _tell(self, trial: Any, made: AnyConfiguration, stopped: Sequence[float] = ()) -> None:
        """``stopped``: what a trial that was ended early had told, by evaluation. It is no finished
        one of a low score: the sampler takes it for worse than all that were finished. Optuna knows
        no values on the way of several objectives; there it is told that it was ended alone."""
        from optuna.trial import TrialState

        first = self._ledger.records.get(f"{made.id}-0")
        if first is not None and first.status == "stopped":
            stopped = first.history or (first.figures["valid_accuracy"],)
        values = None if stopped else self._values(made)
        if stopped:
            if len(self._study.directions) == 1:
                for number, value in enumerate(stopped, start=1):
                    trial.report(value, number)
            self._study.tell(trial, state=TrialState.PRUNED)
        elif values is None:
            self._study.tell(trial, state=_failed())
        else:
            self._study.tell(trial, values)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its searcher, but a resumed sweep starts from the ledger."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds what was tried."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a new searcher is told the ledger."""


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _points(ledger: Ledger) -> list[dict[str, Any]]:
    """What was asked before, in order: a file each, in what earlier versions left a line each."""
    place = ledger.place.child("points")
    found = [json.loads(place.read(name)) for name in place.names() if name.endswith(".json")]
    lines: list[str] = []
    if place.local is not None and (path := place.local.parent / "points.jsonl").is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
    before = []
    for line in lines:
        with suppress(ValueError):  # the last line of a killed driver
            before.append(json.loads(line))
    return [*before, *found]
