"""The race: every method, every seed, each fit in a run of its own, within the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmembed.contract import Classifier, Method, Prediction, Usage
from llmembed.folds import CrossFits, CrossFitted, Folds
from llmembed.methods import mean_of
from llmembed.methods.settings import LeftOut
from llmembed.pipelines.compare.recording import LEFT_OUT, log_result
from llmembed.pipelines.console import console
from llmembed.pipelines.generators import asked_by

if TYPE_CHECKING:
    from llmembed.contract import Runtime
    from llmembed.evaluation import Leaderboard, Result
    from llmembed.experiment import Experiment
    from llmembed.metering import Prices
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
    folds: Folds | None = None
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
                skip = self._skip(method)
                if skip is None and self.folds is not None and isinstance(method, CrossFits):
                    self.results += self._folded(method, self.folds, range(seeds[method.name]))
                    advance(method.name, seeds[method.name])
                else:
                    for seed in range(seeds[method.name]):
                        self.results.append(self._one(method, seed, self._skip(method)))
                        advance(f"{method.name}, seed {seed}")
                board = Leaderboard(self.rivals)
                self.keeper.keep_only(board.winner)
                store(board)
        return Leaderboard(self.rivals)

    @property
    def rivals(self) -> list[Result]:
        """The results of those that may win."""
        return [result for result in self.results if result.method not in self.helpers]

    def _skip(self, method: Method) -> str | None:
        """Why nothing more is started, or None; embeds the texts before the first method that
        reads them."""
        skip = self._over_budget()
        reads = self.assembler.reads_backbone(method.name)
        if skip is None and self.extraction_usd is None and reads:
            self._extract()
            skip = self._over_budget()
        return skip

    def _one(self, method: Method, seed: int, skip: str | None) -> Result:
        """One fit, evaluated, logged and kept if it may win."""
        from llmembed.evaluation import evaluate

        fitted: list[Classifier] = []
        answered: list[Mapping[str, Prediction]] = []
        with self._run(method, seed) as run:
            [result] = evaluate(
                method,
                self.corpus,
                self.runtime,
                seeds=[seed],
                reporter_factory=lambda *_: run.reporter(),
                prices=self._prices,
                wanted_precision=self.experiment.wanted_precision,
                wanted_confidence=self.experiment.wanted_confidence,
                time_limit_seconds=None if skip is None else -1.0,
                on_fitted=lambda _, classifier: fitted.append(classifier),
                on_valid=answered.append,
            )
            if skip is not None:
                result = replace(result, reason=skip)
            self._log(run, method, result, fitted[0] if fitted else None)
        if result.status == "ok":
            start = len(self.corpus.train)
            rows = np.arange(start, start + len(self.corpus.valid))
            self.assembler.keep_left_out(
                method.name, LeftOut(rows=rows, answers=answered[0], shared=Usage())
            )
            self.assembler.keep(method.name, seed, fitted[0])
        return result

    def _folded(self, method: Method, folds: Folds, seeds: Sequence[int]) -> list[Result]:
        """All seeds of one method by folds, each logged in a run of its own. Where there are
        several their mean may win, not the luckiest one."""
        from llmembed.evaluation import evaluate_folded

        with self._run(method, 0) as run:
            results, found = evaluate_folded(
                method,
                self.corpus,
                folds,
                self.runtime,
                seeds=seeds,
                reporter=run.reporter(),
                prices=self._prices,
                wanted_precision=self.experiment.wanted_precision,
                wanted_confidence=self.experiment.wanted_confidence,
            )
            kept, offered = None, results[0]
            if found is not None and all(result.status == "ok" for result in results):
                [kept, *others] = found.classifiers
                if others:
                    kept = mean_of(method.name, found.classifiers, found.shared)
                    results[0], offered = self._with_mean(results[0], kept, folds, found)
            self._log(run, method, results[0], kept, offered)
        for seed, result in enumerate(results[1:], start=1):
            with self._run(method, seed) as run:
                self._log(run, method, result, None)
        if found is not None and kept is not None:
            for seed, classifier in enumerate(found.classifiers):
                self.assembler.keep(method.name, seed, classifier)
            rows = folds.rows if found.rows is None else found.rows
            left_out = LeftOut(rows=rows, answers=found.left_out, shared=found.shared)
            self.assembler.keep_left_out(method.name, left_out)
        return results

    def _with_mean(
        self, result: Result, mean: Classifier, folds: Folds, found: CrossFitted
    ) -> tuple[Result, Result]:
        """``result`` with a note of what the mean of all seeds answers, and that mean's own."""
        from llmembed.evaluation import evaluate_fitted

        rows = folds.rows if found.rows is None else found.rows
        own = evaluate_fitted(
            result,
            mean,
            self.corpus,
            self.runtime,
            left_out=(folds.examples.select(rows), found.left_out),
            rows=rows,
            prices=self._prices,
            wanted=(self.experiment.wanted_precision, self.experiment.wanted_confidence),
        )
        said = ", ".join(f"{task} {score.value:.4f}" for task, score in own.test.items())
        note = f"it would be registered as the mean of its {len(found.classifiers)} seeds"
        note += f", which answers test with {said}" if said else ""
        return replace(result, notes=(*result.notes, note)), own

    def _run(self, method: Method, seed: int) -> AbstractContextManager[Run]:
        return self.parent.tracking.run(f"{method.name} seed {seed}", parent=self.parent)

    def _log(
        self,
        run: Run,
        method: Method,
        result: Result,
        classifier: Classifier | None,
        offered: Result | None = None,
    ) -> None:
        """Keep a result, and ``classifier`` with the result ``offered`` if it may win."""
        log_result(run, result, self.corpus, pictures=result.seed == 0)
        if result.told is not None:
            run.json(result.told.to_json(), LEFT_OUT)
        if result.status != "ok":
            run.outcome = "KILLED" if result.status == "skipped" else "FAILED"
        elif classifier is not None and method.name not in self.helpers:
            self.keeper.offer(offered or result, classifier, run)

    @property
    def _prices(self) -> Prices:
        from llmembed.metering import Prices

        return Prices(**self.experiment.prices.model_dump())

    def _extract(self) -> None:
        from llmembed.embeddings import embed

        texts = [text for part in self.corpus.splits.values() for text in part.texts]
        usage, loading = Usage(), Usage()
        for spec in self.assembler.backbones():
            embedded = embed(spec, texts, self.runtime, keep=False)
            console().print(f"{spec.label}: {embedded.summary()}")
            usage, loading = usage + embedded.usage, loading + embedded.loading
        prices = self._prices
        self.extraction_usd, self.loading_usd = prices.cost(usage), prices.cost(loading)

    def _over_budget(self) -> str | None:
        """Why nothing more is started, or None. The embeddings' cost, borne by every fit that
        reads them, counts once."""
        budget = self.experiment.budget
        if not self.results and self.extraction_usd is None:
            return None
        seconds = time.perf_counter() - self._start
        shared = self.extraction_usd or 0.0
        prices = self._prices
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
def _progress(total: int) -> Iterator[Callable[..., Any]]:
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
        yield lambda words, fits=1: shown.update(task, advance=fits, description=words)
