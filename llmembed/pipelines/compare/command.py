"""``compare`` and ``fit``: methods on one corpus, tracked, one leaderboard, the best registered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmembed.errors import ConfigError
from llmembed.experiment import Experiment
from llmembed.metrics import judged_by
from llmembed.pipelines.compare.disagreeing import with_disagreement
from llmembed.pipelines.compare.keeper import Keeper
from llmembed.pipelines.compare.race import Race
from llmembed.pipelines.compare.recording import (
    LEFT_OUT,
    LeaderboardFile,
    log_corpus,
    log_leaderboard,
)
from llmembed.pipelines.console import (
    check_writable,
    console,
    say_corpus,
    say_leaderboard,
    write_json,
)
from llmembed.pipelines.corpus import changed_names, described, make_corpus, make_source, plain_name
from llmembed.pipelines.folding import make_folds
from llmembed.pipelines.generators import check_keys, default_prices
from llmembed.pipelines.judging import judged
from llmembed.pipelines.methods import Assembler
from llmembed.pipelines.runtime import make_runtime, tracking_files

if TYPE_CHECKING:
    from llmembed.evaluation import Leaderboard, Result
    from llmembed.texts import Corpus
    from llmembed.tracking import Registered, Run


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
    if save is not None:
        _check_save(save)
    chosen = method or names[0]
    return compare(
        experiment.only([chosen]), command="fit", fitted=chosen, save=save, json_path=json_path
    )


def _check_save(save: str) -> None:
    folder = Path(save)
    if "://" in save:
        raise ConfigError(f"--save {save}: a folder of this machine is expected")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"--save {save}: this exists; name a new or an empty folder")


def compare(
    experiment: Experiment,
    *,
    command: str = "compare",
    fitted: str | None = None,
    save: str | None = None,
    json_path: str | None = None,
) -> Compared:
    """Fit every method once per seed, cheap ones first, within the budget; choose on validation,
    register the winner, print and store the leaderboard. ``fitted``: the only method that may win;
    the others are fitted for its sake."""
    from llmembed.tracking import Tracking

    out = console()
    check_writable(json_path)
    make_source(experiment.data)  # what isn't there is said before seconds of loading models
    assembler = Assembler(experiment, drop_unreadable=command == "compare")
    for words in (*assembler.dropped, *changed_names(experiment.tracking)):
        out.print(words, style="yellow")
    order = assembler.order()
    methods = [assembler.method(name) for name in order]
    check_keys(experiment, order)
    if (proviso := default_prices(experiment, order)) is not None:
        out.print(proviso, style="yellow", soft_wrap=True)
    with make_runtime(**experiment.runtime.model_dump()) as runtime:
        corpus = make_corpus(experiment.data, runtime.files)
        corpus = judged(corpus, experiment.metric, experiment.costs)
        say_corpus(out, corpus)
        name = plain_name(experiment.tracking.experiment or corpus.name)
        place = tracking_files(runtime.files)
        tracking = Tracking(experiment.tracking.uri, name, files=place)
        tracking.close_orphans()
        keeper = Keeper()
        alone = fitted or (order[0] if len(order) == 1 else None)
        run_name = f"{command} {alone or corpus.name}"
        with keeper, tracking.run(run_name, description=_description(experiment, corpus)) as run:
            log_corpus(run, experiment, corpus)
            race = Race(
                experiment=experiment,
                assembler=assembler,
                corpus=corpus,
                runtime=runtime,
                parent=run,
                keeper=keeper,
                folds=make_folds(corpus, experiment.selection, experiment.data.seed),
                helpers=frozenset(order) - {fitted} if fitted else frozenset(),
            )
            stored = LeaderboardFile.new(runtime.files, plain_name(corpus.name))
            board = race.run(methods, stored.write)
            board = with_disagreement(board, corpus, assembler, runtime, run)
            if board.disagreement is not None:
                stored.write(board)
            log_leaderboard(run, board)
            registered = _register(experiment, corpus, board, keeper, run, name)
            if registered is None:
                run.outcome = "FAILED"
            elif save is not None and board.winner is not None:
                keeper.copy(board.winner.label, Path(save))
    saved = save if registered is not None else None
    say_leaderboard(out, board, registered, stored.address, tracking, saved, experiment)
    write_json(json_path, board.to_json())
    return Compared(leaderboard=board, registered=registered)


def _register(
    experiment: Experiment,
    corpus: Corpus,
    board: Leaderboard,
    keeper: Keeper,
    run: Run,
    name: str,
) -> Registered | None:
    from llmembed.tracking import champion, register

    winner = board.winner
    if winner is None:
        return None
    kept = keeper.of(winner.label)
    name = plain_name(experiment.tracking.register_as or name)
    holder = champion(run.tracking, name)
    assert winner.valid_mean is not None, "a winner was scored on validation"
    metric = " and ".join(f"{task.name} {judged_by(task)}" for task in corpus.tasks)
    folds = kept.result.folds  # on other texts left out a score is another one
    registered: Registered = register(
        kept.run,
        kept.folder,
        name=name,
        tasks=corpus.tasks,
        # the mean over seeds: the best of many seeds would beat the best of few by luck
        validation_score=winner.valid_mean.mean,
        force=experiment.tracking.promote,
        metric=metric + (f" over {folds} folds" if folds > 1 else ""),
        digest=corpus.digest,
        method=winner.label,
        examples=[corpus.train.texts[0][:500]],
    )
    run.tags({"llmembed.winner": winner.label, "llmembed.registered": registered.uri})
    if holder is not None and (holder.digest, holder.metric) == (corpus.digest, registered.metric):
        said = _against(holder, kept.result, run)
        registered = replace(registered, reason=registered.reason + said)
    return registered


def _against(holder: Registered, result: Result, run: Run) -> str:
    """How the champion until now and the new version answered the texts left out of both, or
    nothing where that was not kept."""
    from llmembed.evaluation.paired import PAIRED, Told, compare_paired
    from llmembed.tracking import logged_json

    metrics = {scores.primary for scores in result.valid.values()}
    kept = logged_json(run.tracking, holder.run_id, LEFT_OUT)
    if kept is None or result.told is None or not metrics <= PAIRED:
        return ""
    found = compare_paired(f"version {holder.version}", result.told, Told.from_json(kept))
    if found is None:
        return ""
    run.metrics({"against_champion/p": found.p})
    return (
        f"; of {found.texts:,} texts left out of both it alone answers {found.only_winner} right, "
        f"{found.label} alone {found.only_other}: p = {found.p:.2g} by McNemar's test"
    )


def _description(experiment: Experiment, corpus: Corpus) -> str:
    lines = [experiment.description, f"Data: {described(experiment.data.source)}."]
    if corpus.partial:
        lines.append(f"**Partial data:** {corpus.partial}.")
    return "\n\n".join(line for line in lines if line)
