"""Sweeps over fusions and heads: texts embedded once, every trial maps the same file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ray import tune

from llmembed.contract import Runtime
from llmembed.errors import ConfigError
from llmembed.heads.settings import head_config
from llmembed.methods.frozen.settings import ProbeSettings
from llmembed.pipelines.methods import Assembler
from tune.heads.data import SharedData, share
from tune.heads.fits import CACHE_BYTES, fit_alone, fit_grouped, grouped
from tune.ledger import Ledger, Planned
from tune.settings import Stopping, Sweep
from tune.space import Range
from tune.trials import Trials, from_config, told_of_failed

if TYPE_CHECKING:
    from llmembed.cluster.session import Session
    from llmembed.texts import Corpus

GRACE_EPOCHS = 4


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every trial of a sweep is told; sent once to each node."""

    sweep: Sweep
    data: SharedData
    threads: int | None
    by_epoch: bool


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
    if work.sweep.trains_groups and len(planned) > 1:
        records = fit_grouped(planned, work.data, work.sweep.head_of, threads=work.threads)
    else:
        records = (
            fit_alone(
                each,
                work.data,
                work.sweep.head_of(each.configuration),  # type: ignore[arg-type]
                reporter=epochs if work.by_epoch and number == 0 else None,
                threads=work.threads,
            )
            for number, each in enumerate(planned)
        )
    for record in records:
        accuracy = record.figures.get("valid_accuracy", told_of_failed(work.sweep))
        epochs.epoch += 1
        tune.report({"epoch": epochs.epoch, "valid_accuracy": accuracy, "record": record.to_json()})


class Heads:
    """What a sweep over fusions and heads does its own way."""

    def __init__(
        self,
        sweep: Sweep,
        ledger: Ledger,
        runtime: Runtime,
        corpus: Corpus,
        session: Session,
        say: Callable[[str], None],
    ) -> None:
        self.sweep, self.session = sweep, session
        views = self._views()
        shapes = {name: (len(v.reads), v.backbone.width) for name, v in views.items()}
        self.space = sweep.make_space(shapes)
        lexical = self.space.dimensions.get("lexical", ())
        if isinstance(lexical, Range):
            raise ConfigError("space.lexical: give the widths as a list, each is fitted once")
        self.data: SharedData = share(corpus, views, runtime, lexical, ledger.scratch, say)

    def _views(self) -> Mapping[str, Any]:
        """Every named view, each backbone resolved once with all reads that any view wants."""
        views = self.sweep.views
        every = {name: ProbeSettings(kind="probe", view=words) for name, words in views.items()}
        assembler = Assembler(self.sweep.experiment(every))
        return {n: assembler.view(w, f"views.{n}") for n, w in views.items()}

    def groups(self, missing: Sequence[Planned]) -> list[list[Planned]]:
        """Fits of equal shape, which are trained side by side."""
        limit = None if self._gpus() else CACHE_BYTES
        return grouped(missing, self.data, self.sweep.head_of, most_bytes=limit)

    def trials(self, count: int, stopping: Stopping) -> Trials:
        """``count`` of them are to be made."""
        session, asked = self.session, self.sweep.search.concurrent
        concurrent = max(1, min(session.cores, count)) if asked == "auto" else asked
        work = Work(
            sweep=self.sweep,
            data=self._with_copies(session.nodes),
            threads=max(1, session.cores // concurrent) if session.nodes == 1 else 1,
            by_epoch=stopping != "none",
        )
        each = self.sweep.runtime.gpus_per_actor
        gpus = {"gpu": 1 / 4 if each == "auto" else float(each)} if self._gpus() else {}
        longest = head_config(self.sweep.head).epochs + 10  # past what a fit reports
        return Trials(
            trainable=tune.with_parameters(run_trial, work=work),
            resources={"cpu": 1.0, **gpus},
            concurrent=concurrent,
            reuse_actors=True,
            stopping=stopping,
            longest=longest,
            grace=GRACE_EPOCHS,
            again=self.sweep.trains_groups,
        )

    def over(self, fit: Planned) -> None:
        """Nothing is left of a fit that is over."""

    def close(self) -> None:
        """Nothing is left of the search."""

    def _gpus(self) -> float:
        import ray

        offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return offered.get("GPU", 0.0)

    def _with_copies(self, nodes: int) -> SharedData:
        """On several machines the arrays also go into Ray's shared memory, once a machine."""
        if nodes == 1:
            return self.data
        import numpy as np
        import ray

        paths = [*self.data.arrays.values(), *self.data.lexical.values()]
        copies = {path: ray.put(np.load(path, mmap_mode="r")) for path in paths}
        return replace(self.data, copies=copies)
