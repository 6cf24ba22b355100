"""Sweeps over models trained whole: each trial is a function that starts a training on Ray Train,
waits for its workers, and scores what they leave on validation."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ray import tune

from llmembed.contract import Runtime
from llmembed.errors import LlmembedError
from llmembed.finetuning import FinetuneConfig
from tune.ledger import Ledger, Planned, Record
from tune.models.space import TrainingConfiguration, epochs_of
from tune.settings import Stopping, Sweep
from tune.trials import Trials, from_config, told_of_failed

if TYPE_CHECKING:
    from llmembed.cluster.portions import Portion
    from llmembed.cluster.session import Session
    from llmembed.evaluation import Result
    from llmembed.texts import Corpus

GRACE_EPOCHS = 1
LONGEST_EPOCHS = 10_000
SAMPLE = 64
"""Configurations looked at for how many workers one may want, where a searcher names them later."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every trial of a sweep is told; sent once to each node. ``corpus`` has no test part.
    ``place``: the folder that relative paths start from."""

    sweep: Sweep
    corpus: Corpus
    portion: Portion
    files: str
    place: str
    by_epoch: bool


class _Heard:
    """A ``contract.Reporter`` that remembers validation and, with ``tells``, tells Ray Tune, which
    may end the trial's process, and all that it started, there and then."""

    def __init__(self, rows: int, *, tells: bool) -> None:
        self._rows, self._tells = rows, tells
        self.config = FinetuneConfig()
        self.epoch = 0.0
        self._read = -1
        self.scores: list[float] = []

    def report(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.epoch = max(self.epoch, epochs_of(self.config, self._rows, step))
        if "valid/score" not in metrics or step <= self._read:
            return  # the last report says again what the one before it said
        self._read = step
        self.scores.append(metrics["valid/score"])
        if self._tells:
            tune.report({"epoch": self.epoch, "valid_accuracy": self.scores[-1]})


def run_trial(config: Mapping[str, Any], *, work: Work) -> None:
    """One trial: one training, or one after another of several seeds."""
    if Path(work.place).is_dir():
        os.chdir(work.place)  # Ray Tune starts it elsewhere
    epoch = 0.0
    for planned in from_config(config):
        heard = _Heard(len(work.corpus.train), tells=work.by_epoch)
        record = train_one(planned, work, heard)
        accuracy = record.figures.get("valid_accuracy", told_of_failed(work.sweep))
        epoch += heard.epoch + 1e-3  # after the last that was told
        tune.report({"epoch": epoch, "valid_accuracy": accuracy, "record": record.to_json()})


def train_one(planned: Planned, work: Work, heard: _Heard) -> Record:
    """One training by its method; a failure is a record too, with its reason."""
    import torch

    from llmembed.cluster import RayRuntime
    from llmembed.embeddings.folder import Folder
    from llmembed.evaluation import evaluate
    from llmembed.pipelines.methods import Assembler

    torch.set_num_threads(work.portion.cores)
    try:
        assert isinstance(planned.configuration, TrainingConfiguration)
        settings = work.sweep.trained(planned.configuration)
        heard.config = settings.config
        method = Assembler(work.sweep.experiment({"tuned": settings})).method("tuned")
        files = Folder(work.files).child(planned.id).address
        with RayRuntime(files, portion=work.portion) as runtime:
            [result] = evaluate(
                method,
                work.corpus,
                runtime,
                seeds=[planned.seed],
                reporter_factory=lambda *_: heard,
            )
    except LlmembedError as error:
        return Record(planned=planned, status="failed", reason=_short(str(error)))
    return _record(planned, result, heard, wanted=work.sweep.search.second_objective)


def _record(planned: Planned, result: Result, heard: _Heard, *, wanted: str | None) -> Record:
    """``wanted``: the figure that the search reads beside accuracy."""
    value = result.valid_value()
    if result.status != "ok" or value is None:
        return Record(planned=planned, status="failed", reason=_short(str(result.reason)))
    usage, latency = result.fit_usage, result.latency
    if latency is None and wanted == "latency_seconds":
        reason = next((n for n in result.notes if n.startswith("latency")), "latency not measured")
        return Record(planned=planned, status="failed", reason=_short(reason))
    return Record(
        planned=planned,
        status="ok",
        energy_is_estimated=usage.energy_is_estimated,
        figures={
            "valid_accuracy": value,
            **{f"valid_accuracy/{task}": scores.value for task, scores in result.valid.items()},
            "seconds": result.wall_seconds,
            "energy_joules": usage.energy_joules,
            **({} if latency is None else {"latency_seconds": latency.p50_seconds}),
            "parameters": float(result.parameters_trained or 0),
            "epochs": heard.epoch,
        },
        history=tuple(heard.scores),
    )


def _short(words: str) -> str:
    return " ".join(words.split())[:500]


class Models:
    """What a sweep over models trained whole does its own way."""

    def __init__(
        self,
        sweep: Sweep,
        ledger: Ledger,
        runtime: Runtime,
        corpus: Corpus,
        session: Session,
        say: Callable[[str], None],
    ) -> None:
        from llmembed.cluster.portions import nodes_here, wait_for_gpus
        from llmembed.cluster.sharding import Devices

        self.sweep, self.session, self.say = sweep, session, say
        self.corpus = replace(corpus, test=None)
        self.space = sweep.training_space()
        # A folder for each trial: what it was at when it was killed waits there for its next start.
        self._folder = ledger.place.child("trials")
        pool = cast(Any, runtime).plan().model
        wait_for_gpus(math.ceil(pool.largest * pool.gpus), say)
        self._nodes, self._devices = nodes_here(), Devices.of_cluster(session)
        self._workers = max(self._wants(each) for each in self._looked_at())
        wanted = sweep.search.concurrent
        if wanted != "auto":
            self._placed(wanted)  # what can't be placed is said before the search, not after

    def _looked_at(self) -> Sequence[TrainingConfiguration]:
        search = self.sweep.search
        if search.algorithm == "grid":
            return self.space.grid()
        return self.space.random(max(SAMPLE, search.trials), search.seed)

    def _wants(self, configuration: TrainingConfiguration) -> int:
        """How many workers the configuration is trained on."""
        from llmembed.cluster.sharding import fewest_workers
        from llmembed.finetuning.places import source_of

        settings = self.sweep.trained(configuration)
        if settings.workers != "auto" or not self._devices.gpus:
            return 1 if settings.workers == "auto" else int(settings.workers)
        source = source_of(settings.model, revision=settings.revision, causal=settings.causal)
        spread = settings.spread("auto")
        return fewest_workers(spread.sharding(source, settings.config, "sweep"), self._devices)

    def groups(self, missing: Sequence[Planned]) -> list[list[Planned]]:
        """Whole models are trained each by itself."""
        return [[each] for each in missing]

    def _placed(self, count: int) -> tuple[int, Portion]:
        """How many of ``count`` trials are trained at once, and what each may use."""
        from llmembed.cluster.portions import portions

        return portions(
            self._nodes,
            self._devices,
            cores=self.session.cores,
            workers=self._workers,
            wanted=self.sweep.search.concurrent,
            most=count,
        )

    def trials(self, count: int, stopping: Stopping) -> Trials:
        """``count`` of them are to be made."""
        from llmembed.cluster.portions import DRIVER_CPUS

        concurrent, portion = self._placed(count)
        self.say(
            f"{concurrent} trial{'s' * (concurrent > 1)} at once, "
            f"{portion.workers} worker{'s' * (portion.workers > 1)} each"
        )
        work = Work(
            sweep=self.sweep,
            corpus=self.corpus,
            portion=portion,
            files=self._folder.address,
            place=str(Path.cwd()),
            by_epoch=stopping != "none",
        )
        return Trials(
            trainable=tune.with_parameters(run_trial, work=work),
            resources={"cpu": DRIVER_CPUS},
            concurrent=concurrent,
            reuse_actors=False,
            stopping=stopping,
            longest=LONGEST_EPOCHS,
            grace=GRACE_EPOCHS,
        )

    def over(self, fit: Planned) -> None:
        """A fit that is over needs its checkpoints no more."""
        self._folder.child(fit.id).delete()

    def close(self) -> None:
        """What workers that were ended on the way may have left."""
        self._folder.delete()
