"""The race: every method, every seed, each fit in a run of its own, within the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmembed.contract import Classifier, Method
from llmembed.pipelines.compare.recording import log_result
from llmembed.pipelines.console import console
from llmembed.pipelines.generators import asked_by

if TYPE_CHECKING:
    from llmembed.contract import Runtime
    from llmembed.evaluation import Leaderboard, Result
    from llmembed.experiment import Experiment
    from llmembed.pipelines.compare.keeper import Keeper
    from llmembed.pipelines.methods import Assembler
    from llmembed.texts import Corpus
    from llmembed.tracking import Run


@dataclass(kw_only=True)
class Race:
    """Runs methods one after another; knows what was spent. ``helpers``: methods that are fitted
    for another's sake alone; they stand on no leaderboard and can't win.

    Texts are embedded once for all methods, before the first that reads a backbone: one pass, one
    progress bar, one line. ``extraction_usd`` is what that took, in every such fit's cost
    again; ``loading_usd`` what
    making the backbones took, which is in none.
    """

    experiment: Experiment
    assembler: Assembler
    corpus: Corpus
    runtime: Runtime
    parent: Run
    keeper: Keeper
    helpers: frozenset[str] = frozenset()
    results: list[Result] = field(default_factory=list)
    extraction_usd: float | None = None
    loading_usd: float = 0.0
    _start: float = field(default_factory=time.perf_counter)

    def run(self, methods: Sequence[Method], store: Callable[[Leaderboard], None]) -> Leaderboard:
        """Fit ``methods`` in order; ``store`` gets the leaderboard after each of them."""
        from llmembed.evaluation import Leaderboard

        seeds = {
            method.name: 1 if getattr(method, "deterministic", False) else self.experiment.seeds
            for method in methods
        }
        self._start = time.perf_counter()
        with _progress(sum(seeds.values())) as advance:
            for method in methods:
                for seed in range(seeds[method.name]):
                    self.results.append(self._one(method, seed))
                    advance(f"{method.name}, seed {seed}")
                board = Leaderboard(self.rivals)
                self.keeper.keep_only(board.winner)
                store(board)
        return Leaderboard(self.rivals)

    @property
    def rivals(self) -> list[Result]:
        """The results of those that may win."""
        return [result for result in self.results if result.method not in self.helpers]

    def _one(self, method: Method, seed: int) -> Result:
        """One fit, evaluated, logged and kept if it may win."""
        from llmembed.evaluation import evaluate
        from llmembed.metering import Prices

        skip = self._over_budget()
        reads = self.assembler.reads_backbone(method.name)
        if skip is None and self.extraction_usd is None and reads:
            self._extract()
            skip = self._over_budget()
        fitted: list[Classifier] = []
        with self.parent.tracking.run(f"{method.name} seed {seed}", parent=self.parent) as run:
            [result] = evaluate(
                method,
                self.corpus,
                self.runtime,
                seeds=[seed],
                reporter_factory=lambda *_: run.reporter(),
                prices=Prices(**self.experiment.prices.model_dump()),
                wanted_precision=self.experiment.wanted_precision,
                wanted_confidence=self.experiment.wanted_confidence,
                time_limit_seconds=None if skip is None else -1.0,
                on_fitted=lambda _, classifier: fitted.append(classifier),
            )
            if skip is not None:
                result = replace(result, reason=skip)
            log_result(run, result, self.corpus, pictures=seed == 0)
            if result.status == "ok":
                if method.name not in self.helpers:
                    self.keeper.offer(result, fitted[0], run)
                self.assembler.keep(method.name, seed, fitted[0])
            else:
                run.outcome = "KILLED" if result.status == "skipped" else "FAILED"
        return result

    def _extract(self) -> None:
        from llmembed.contract import Usage
        from llmembed.embeddings import embed
        from llmembed.metering import Prices

        texts = [text for part in self.corpus.splits.values() for text in part.texts]
        usage, loading = Usage(), Usage()
        for spec in self.assembler.backbones():
            embedded = embed(spec, texts, self.runtime, keep=False)
            console().print(f"{spec.label}: {embedded.summary()}")
            usage, loading = usage + embedded.usage, loading + embedded.loading
        prices = Prices(**self.experiment.prices.model_dump())
        self.extraction_usd, self.loading_usd = prices.cost(usage), prices.cost(loading)

    def _over_budget(self) -> str | None:
        """Why nothing more is started, or None. The embeddings' cost, borne by every fit that
        reads them, counts once."""
        from llmembed.metering import Prices

        budget = self.experiment.budget
        if not self.results and self.extraction_usd is None:
            return None
        seconds = time.perf_counter() - self._start
        shared = self.extraction_usd or 0.0
        prices = Prices(**self.experiment.prices.model_dump())
        # What language models took counts as it was paid, whatever became of the fit.
        usd = shared + self.loading_usd + prices.cost(self.assembler.paid())
        usd += sum(
            result.cost_usd - (min(shared, result.cost_usd) if result.usage.tokens else 0.0)
            for result in self.results
            if not asked_by(self.experiment, result.method)
        )
        if budget.seconds is not None and seconds > budget.seconds:
            return f"not started: the budget of {budget.seconds:g} s was spent"
        if budget.usd is not None and usd > budget.usd:
            return f"not started: the budget of {budget.usd:g} USD was spent"
        return None


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], Any]]:
    """A bar over all fits on a terminal's standard error; nothing elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    terminal = console(stderr=True)
    with Progress(
        TextColumn("fits"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=terminal,
        disable=not terminal.is_terminal,
        transient=True,
    ) as shown:
        task = shown.add_task("", total=total)
        yield lambda words: shown.update(task, advance=1, description=words)
