"""The winner: fitted anew over its seeds, test read once by each fit, registered."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from llmembed.contract import Classifier, Runtime
from llmembed.metrics import judged_by
from llmembed.pipelines.compare.keeper import Keeper
from llmembed.pipelines.compare.recording import log_leaderboard, log_result
from llmembed.pipelines.corpus import plain_name
from llmembed.pipelines.methods import Assembler
from tune.board import Standing
from tune.ledger import Ledger
from tune.recording import end_as
from tune.settings import Sweep

if TYPE_CHECKING:
    from llmembed.evaluation import Result
    from llmembed.texts import Corpus
    from llmembed.tracking import Run


def crown(
    sweep: Sweep,
    winner: Standing,
    corpus: Corpus,
    runtime: Runtime,
    run: Run,
    ledger: Ledger,
) -> dict[str, Any]:
    """Fit and score the winner; returns its test figures (validation's without a test part). The
    ledger is told them seed by seed, as soon as test was read and before anything else can fail;
    for a seed that it knows of the winner is but fitted again.

    Leaves ``winner.yaml``, an experiment that ``llmembed fit`` takes, and ``winner/``, the
    classifier of the seed best on validation.
    """
    from llmembed.evaluation import Leaderboard, Result
    from llmembed.tracking import register

    tests = ledger.tests()
    experiment = sweep.experiment({"tuned": sweep.method_of(winner.configuration)})
    recipe = experiment.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    ledger.place.write("winner.yaml", text.encode())
    method = Assembler(experiment).method("tuned")
    results: list[Result] = []
    with Keeper() as keeper:
        for seed in range(sweep.search.final_seeds):
            earlier = Result.from_json(tests[seed]) if seed in tests else None
            results.append(_one(sweep, method, seed, corpus, runtime, run, keeper, ledger, earlier))
        board = Leaderboard(results)
        log_leaderboard(run, board)
        figures = _figures(results)
        if board.winner is None:
            return figures
        kept = keeper.of(board.winner.label)
        ledger.place.child("winner").put(kept.folder)
        value = kept.result.valid_value()
        assert value is not None
        registered = register(
            kept.run,
            kept.folder,
            name=plain_name(sweep.tracking.register_as or sweep.tracking.experiment or corpus.name),
            tasks=corpus.tasks,
            validation_score=value,
            metric=" and ".join(f"{task.name} {judged_by(task)}" for task in corpus.tasks),
            digest=corpus.digest,
            method=board.winner.label,
            examples=[corpus.train.texts[0][:500]],
        )
    return {
        **figures,
        "registered": f"{registered.name}@{registered.alias}",
        "registered_because": registered.reason,
    }


def _one(
    sweep: Sweep,
    method: Any,
    seed: int,
    corpus: Corpus,
    runtime: Runtime,
    parent: Run,
    keeper: Keeper,
    ledger: Ledger,
    earlier: Result | None,
) -> Result:
    from llmembed.evaluation import evaluate
    from llmembed.metering import Prices

    fitted: list[Classifier] = []
    tags = {"llmembed.final": "yes"}
    with parent.tracking.run(f"winner seed {seed}", parent=parent, tags=tags) as run:
        [result] = evaluate(
            method,
            corpus if earlier is None else replace(corpus, test=None),
            runtime,
            seeds=[seed],
            reporter_factory=lambda *_: run.reporter(),
            prices=Prices(**sweep.prices.model_dump()),
            on_fitted=lambda _, classifier: fitted.append(classifier),
        )
        if earlier is not None and fitted:
            result = earlier
        elif result.test:
            ledger.note_test(seed, result.to_json())
        log_result(run, result, corpus, pictures=seed == 0)
        if fitted:
            keeper.offer(result, fitted[0], run)
    if result.status != "ok":
        end_as(run, "FAILED")
    return result


def _figures(results: list[Result]) -> dict[str, Any]:
    """Mean and deviation over seeds of each task's primary metric."""
    sound = [result for result in results if result.status == "ok"]
    part = "test" if sound and sound[0].test else "validation"
    tasks: dict[str, Mapping[str, Any]] = {}
    for task in (sound[0].test or sound[0].valid) if sound else ():
        scores = [(result.test or result.valid)[task] for result in sound]
        values = [each.value for each in scores]
        tasks[task] = {
            "metric": scores[0].primary,
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "values": values,
        }
    return {"part": part, "tasks": tasks}
