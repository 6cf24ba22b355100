"""``compare`` and ``fit``: methods on one corpus, tracked, one leaderboard, the best registered."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.contract import Classifier, Method
from llmembed.errors import ConfigError
from llmembed.experiment import Experiment
from llmembed.pipelines.assembler import Assembler
from llmembed.pipelines.assembly import described, make_corpus, make_runtime
from llmembed.pipelines.keeping import Keeper
from llmembed.pipelines.printing import console, say_corpus, say_leaderboard, write_json
from llmembed.pipelines.recording import log_corpus, log_leaderboard, log_result

if TYPE_CHECKING:
    from llmembed.contract import Runtime
    from llmembed.evaluation import Leaderboard, Result
    from llmembed.texts import Corpus
    from llmembed.tracking import Registered, Run

CHEAP_FIRST = ("lexical", "probe", "fused")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What ``compare`` leaves: the leaderboard, and the winner as registered, if it was."""

    leaderboard: Leaderboard
    registered: Registered | None


def fit(
    experiment: Experiment,
    *,
    method: str | None = None,
    save: str | None = None,
    json_path: str | None = None,
) -> Compared:
    """``compare`` with one method. ``save``: a folder for the classifier, best seed on validation.

    Raises:
        ConfigError: the experiment has several methods and ``method`` names none of them.
    """
    names = list(experiment.methods)
    if method is None and len(names) > 1:
        raise ConfigError(f"which method? --method takes one of {', '.join(names)}")
    if method is not None and method not in names:
        raise ConfigError(f"no method {method!r} in this experiment; it has {', '.join(names)}")
    if save is not None and Path(save).exists() and any(Path(save).iterdir()):
        raise ConfigError(f"--save {save}: the folder is not empty")
    only = {method or names[0]: experiment.methods[method or names[0]]}
    chosen = experiment.model_copy(update={"methods": only})
    return compare(chosen, command="fit", save=save, json_path=json_path)


def compare(
    experiment: Experiment,
    *,
    command: str = "compare",
    save: str | None = None,
    json_path: str | None = None,
) -> Compared:
    """Fit every method once per seed, cheap ones first, within the budget; choose on validation,
    register the winner, print and store the leaderboard."""
    from llmembed.tracking import Tracking

    out = console()
    assembler = Assembler(experiment)
    order = sorted(experiment.methods, key=lambda n: CHEAP_FIRST.index(experiment.methods[n].kind))
    methods = [assembler.method(name) for name in order]
    with make_runtime(**experiment.runtime.model_dump()) as runtime:
        corpus = make_corpus(experiment.data, runtime.files)
        say_corpus(out, corpus)
        name = _plain(experiment.tracking.experiment or corpus.name)
        tracking = Tracking(experiment.tracking.uri, name, files=runtime.files)
        tracking.close_orphans()
        keeper = Keeper()
        run_name = f"{command} {corpus.name}" if len(order) > 1 else f"{command} {order[0]}"
        with keeper, tracking.run(run_name, description=_description(experiment, corpus)) as run:
            log_corpus(run, experiment, corpus)
            _extract(assembler, corpus, runtime, out)
            board = _race(experiment, methods, corpus, runtime, run, keeper)
            log_leaderboard(run, board)
            registered = _register(experiment, corpus, board, keeper, run, name)
            winner = board.winner
            if save is not None and winner is not None:
                keeper.copy(winner.label, Path(save))
        stored = _store(board, runtime.files, corpus.name)
    say_leaderboard(out, board, registered, stored, tracking, save)
    write_json(json_path, board.to_json())
    return Compared(leaderboard=board, registered=registered)


def _extract(assembler: Assembler, corpus: Corpus, runtime: Runtime, out: Any) -> None:
    """Embed every text once, before any method asks: one pass, one progress bar, one line."""
    from llmembed.embeddings import embed

    parts = (corpus.train, corpus.valid, corpus.test)
    texts = [text for part in parts if part is not None for text in part.texts]
    for spec in assembler.backbones():
        out.print(f"{spec.label}: {embed(spec, texts, runtime, keep=False).summary()}")


def _race(
    experiment: Experiment,
    methods: Sequence[Method],
    corpus: Corpus,
    runtime: Runtime,
    parent: Run,
    keeper: Keeper,
) -> Leaderboard:
    """Every method, every seed, each fit in a run of its own below ``parent``."""
    from llmembed.evaluation import Leaderboard

    results: list[Result] = []
    start = time.perf_counter()
    with _progress(methods, experiment.seeds) as advance:
        for method in methods:
            deterministic = bool(getattr(method, "deterministic", False))
            for seed in range(1 if deterministic else experiment.seeds):
                spent = time.perf_counter() - start
                usd = sum(result.cost_usd for result in results)
                reason = _over_budget(experiment, spent, usd) if results else None
                result = _one(experiment, method, seed, corpus, runtime, parent, keeper, reason)
                results.append(result)
                advance(f"{method.name}, seed {seed}")
            keeper.keep_only(Leaderboard(results).winner)
    return Leaderboard(results)


def _over_budget(experiment: Experiment, seconds: float, usd: float) -> str | None:
    budget = experiment.budget
    if budget.seconds is not None and seconds > budget.seconds:
        return f"not started: the budget of {budget.seconds:g} s was spent"
    if budget.usd is not None and usd > budget.usd:
        return f"not started: the budget of {budget.usd:g} USD was spent"
    return None


def _one(
    experiment: Experiment,
    method: Method,
    seed: int,
    corpus: Corpus,
    runtime: Runtime,
    parent: Run,
    keeper: Keeper,
    skip: str | None,
) -> Result:
    """One fit, evaluated and logged."""
    from llmembed.evaluation import evaluate
    from llmembed.metering import Prices

    fitted: list[Classifier] = []
    with parent.tracking.run(f"{method.name} seed {seed}", parent=parent) as run:
        [result] = evaluate(
            method,
            corpus,
            runtime,
            seeds=[seed],
            reporter_factory=lambda *_: run.reporter(),
            prices=Prices(**experiment.prices.model_dump()),
            wanted_precision=experiment.wanted_precision,
            time_limit_seconds=None if skip is None else -1.0,
            on_fitted=lambda _, classifier: fitted.append(classifier),
        )
        if skip is not None:
            result = replace(result, reason=skip)
        log_result(run, result, corpus, pictures=seed == 0)
    if result.status != "ok":
        run.end("FAILED")
    elif fitted:
        keeper.offer(result, fitted[0], run)
    return result


def _register(
    experiment: Experiment,
    corpus: Corpus,
    board: Leaderboard,
    keeper: Keeper,
    run: Run,
    name: str,
) -> Registered | None:
    from llmembed.tracking import register

    winner = board.winner
    if winner is None:
        return None
    kept = keeper.of(winner.label)
    value = kept.result.valid_value()
    assert value is not None
    registered: Registered = register(
        kept.run,
        kept.folder,
        name=_plain(experiment.tracking.register_as or name),
        tasks=corpus.tasks,
        validation_score=value,
        metric=" and ".join(f"{t} {m}" for t, m in board.primary.items()),
        digest=corpus.digest,
        method=winner.label,
        examples=[corpus.train.texts[0][:500]],
    )
    run.tags({"llmembed.winner": winner.label, "llmembed.registered": registered.uri})
    return registered


def _store(board: Leaderboard, files: str, corpus: str) -> str:
    """Keep the leaderboard where ``llmembed report`` finds it; names sort by time."""
    from llmembed.embeddings import Folder

    folder = Folder(files).child("leaderboards")
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{_plain(corpus)}.json"
    folder.write(name, json.dumps(board.to_json(), indent=1, ensure_ascii=False).encode())
    base, mark, options = folder.address.partition("?")
    return f"{base}/{name}{mark}{options}"


def _description(experiment: Experiment, corpus: Corpus) -> str:
    lines = [experiment.description, f"Data: {described(experiment.data.source)}."]
    if corpus.partial:
        lines.append(f"**Partial data:** {corpus.partial}.")
    return "\n\n".join(line for line in lines if line)


def _plain(name: str) -> str:
    """A name that MLflow and a file system take."""
    return re.sub(r"[^\w.+-]+", "-", Path(name).stem if "/" in name else name) or "unnamed"


def _progress(methods: Sequence[Method], seeds: int) -> Any:
    """A bar over all fits on a terminal's standard error; nothing elsewhere."""
    from contextlib import contextmanager

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    @contextmanager
    def bar() -> Any:
        columns = (
            TextColumn("fits"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        terminal = console(stderr=True)
        total = sum(1 if getattr(method, "deterministic", False) else seeds for method in methods)
        with Progress(
            *columns, console=terminal, disable=not terminal.is_terminal, transient=True
        ) as shown:
            task = shown.add_task("", total=total)
            yield lambda words: shown.update(task, advance=1, description=words)

    return bar()
