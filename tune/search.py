"""A sweep from beginning to end: search, refit the best, name a winner, read test once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.contract import Runtime
from llmembed.embeddings.folder import Folder
from llmembed.errors import ConfigError
from llmembed.pipelines.console import console, say_corpus, write_json
from llmembed.pipelines.corpus import changed_names, described, make_corpus, plain_name
from llmembed.pipelines.judging import judged
from llmembed.pipelines.runtime import files_folder, make_runtime, tracking_files
from tune.board import Live, Standing, pareto, standings
from tune.ledger import FACTS, AnyConfiguration, Ledger, Planned, Record
from tune.recording import log_corpus_once, log_fit, log_missing, log_outcome, reopened
from tune.settings import Stopping, Sweep, sweep_from
from tune.summary import Found, files_option, say, to_json

if TYPE_CHECKING:
    from llmembed.cluster.session import Session
    from llmembed.texts import Corpus
    from llmembed.tracking import Run, Tracking


def start(sweep: Sweep, *, name: str | None = None, json_path: str | None = None) -> Found:
    """Run a new sweep; ``name`` is what ``resume`` takes, by default data set and time."""
    files = files_folder(sweep.runtime.files)
    _check(sweep)
    if name is None:
        stem = Path(described(sweep.data.source).split()[0]).stem
        name = f"{stem}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    place, scratch = _places(files, name)
    ledger = Ledger.create(place, {"sweep": sweep.model_dump(mode="json")}, scratch)
    return _go(sweep, ledger, json_path)


def resume(
    name: str,
    *,
    files: str | None = None,
    address: str | None = None,
    json_path: str | None = None,
) -> Found:
    """Go on with a sweep that was killed or stopped: what is finished is not run again."""
    ledger = Ledger.open(*_places(files_folder(files), name))
    content = ledger.facts["sweep"]
    content["runtime"]["files"] = files_folder(files)
    if address is not None:
        content["runtime"]["address"] = address
    return _go(sweep_from(content, ledger.place.address), ledger, json_path)


def _places(files: str, name: str) -> tuple[Folder, Path]:
    """Where a sweep's notes lie, and a folder here for what can be made again. Notes of earlier
    versions, which kept them in the working directory beside files on s3, are gone on with."""
    if Path(name).name != name:
        raise ConfigError(f"--name {name!r}: a sweep's name is one word, without folders")
    place = Folder(files).child("sweeps", name)
    earlier = Path("llmembed-files", "sweeps", name).resolve()
    if place.local is None and (earlier / FACTS).is_file():
        return Folder(str(earlier)), earlier
    return place, Path(tracking_files(files)) / "sweeps" / name


def _check(sweep: Sweep) -> None:
    settings = sweep.search
    if settings.stopping != "none" and settings.seeds > 1:
        raise ConfigError(
            "search.seeds: with early stopping each configuration is searched with one seed; "
            "search.final_seeds says how often the best are refitted"
        )
    _ = sweep.trains_groups
    if sweep.runtime.local:
        raise ConfigError("runtime.local: a sweep runs on Ray; it starts one here by itself")


def _go(sweep: Sweep, ledger: Ledger, json_path: str | None) -> Found:
    from llmembed.cluster import connect, disconnect
    from llmembed.tracking import Tracking

    out = console()
    out.print(f"sweep [bold]{ledger.name}[/]")
    with make_runtime(**sweep.runtime.model_dump()) as runtime:
        corpus = judged(make_corpus(sweep.data, runtime.files), sweep.metric, sweep.costs)
        say_corpus(out, corpus)
        for words in changed_names(sweep.tracking):
            out.print(words, style="yellow")
        if ledger.facts.get("digest", corpus.digest) != corpus.digest:
            raise ConfigError(f"the data of sweep {ledger.name!r} changed: start a new sweep")
        tracking = Tracking(
            sweep.tracking.uri,
            plain_name(sweep.tracking.experiment or corpus.name),
            files=tracking_files(runtime.files),
        )
        tracking.close_orphans()
        with _parent(tracking, ledger, sweep, corpus) as run:
            ledger.note(digest=corpus.digest, run=run.id)
            try:
                session = connect(sweep.runtime.address, dashboard=sweep.method is not None)
                try:
                    found = _Search(sweep, ledger, runtime, corpus, run, out, session).whole()
                finally:
                    disconnect(session)
            except KeyboardInterrupt:
                kept = len(ledger.records)
                out.print(
                    f"stopped; {kept} finished fits are kept. Go on with\n  "
                    f"llmembed tune --resume {ledger.name}{files_option(sweep)}"
                )
                raise
    say(out, sweep, found, tracking.ui_command)
    write_json(json_path, to_json(found, sweep, corpus))
    return found


def _parent(
    tracking: Tracking, ledger: Ledger, sweep: Sweep, corpus: Corpus
) -> AbstractContextManager[Run]:
    """The sweep's run: a new one, or its own again."""
    earlier = ledger.facts.get("run")
    if earlier is not None:
        return reopened(tracking, earlier, ledger.name)
    return tracking.run(
        f"tune {corpus.name}",
        tags={"llmembed.sweep": ledger.name},
        description=sweep.description or None,
    )


class _Search:
    """The steps of a sweep, in order, and what they share."""

    def __init__(
        self,
        sweep: Sweep,
        ledger: Ledger,
        runtime: Runtime,
        corpus: Corpus,
        run: Run,
        out: Any,
        session: Session,
    ) -> None:
        self.sweep, self.ledger, self.runtime = sweep, ledger, runtime
        self.corpus, self.run, self.out = corpus, run, out
        self.objective = sweep.search.second_objective
        if sweep.method is None:
            from tune.heads.trial import Heads as Kind
        else:
            from tune.models.trial import Models as Kind  # type: ignore[assignment]
        self.kind = Kind(sweep, ledger, runtime, corpus, session, lambda words: out.print(words))

    def whole(self) -> Found:
        log_corpus_once(self.run, self.sweep, self.corpus)
        log_missing(self.run, self.ledger, self.corpus)
        self._try()
        finalists = self._finalists()
        seeds = range(self.sweep.search.final_seeds)
        self._fit([Planned(configuration=c, seed=s) for c in finalists for s in seeds])
        self.kind.close()
        found = standings(self.ledger.records)
        told = self.ledger.facts.get("outcome")
        chosen = [told["winner"]] if told else [c.id for c in finalists]
        winner = next((each for each in found if each.configuration.id in chosen), None)
        log_outcome(self.run, self.ledger, found, winner, self.objective)
        test: Mapping[str, Any] = {}
        if told:
            self.out.print("this sweep was over before: its test figures are not read anew")
            test = told["test"]
        elif winner is not None:
            test = self._crowned(winner)
        return Found(
            name=self.ledger.name,
            standings=found,
            winner=winner,
            front=pareto(found, self.objective) if self.objective else (),
            failed=[r for r in self.ledger.records.values() if r.status == "failed"],
            test=test,
            place=self.ledger.place,
        )

    def _crowned(self, winner: Standing) -> Mapping[str, Any]:
        """The winner's test figures, noted: test is read once, whatever is resumed later."""
        from tune.winner import crown

        test = crown(self.sweep, winner, self.corpus, self.runtime, self.run, self.ledger)
        if test["tasks"]:
            self.ledger.note(outcome={"winner": winner.configuration.id, "test": dict(test)})
        return test

    def _try(self) -> None:
        """Walk the space."""
        settings = self.sweep.search
        if settings.algorithm == "tpe":
            self._suggested()
            return
        if settings.algorithm == "grid":
            chosen: Sequence[Any] = self.kind.space.grid()
        else:
            chosen = self.kind.space.random(settings.trials, settings.seed)
        self.out.print(f"{len(chosen)} configurations, {settings.seeds} fits of each")
        planned = [Planned(configuration=c, seed=s) for c in chosen for s in range(settings.seeds)]
        self._fit(planned, settings.stopping)

    def _finalists(self) -> Sequence[AnyConfiguration]:
        """The best of the search, chosen once: what is resumed among their refits goes on with
        them."""
        noted = self.ledger.facts.get("finalists")
        if noted is None:
            found = standings(self.ledger.records)
            if self.objective:
                found = sorted(pareto(found, self.objective), key=lambda each: -each.accuracy)
            noted = [each.configuration.id for each in found[: self.sweep.search.finalists]]
            self.ledger.note(finalists=noted)
        known = {r.planned.configuration.id: r.planned.configuration for r in self._records()}
        return [known[id_] for id_ in noted]

    def _records(self) -> Sequence[Record]:
        return list(self.ledger.records.values())

    def _fit(self, planned: Sequence[Planned], stopping: Stopping = "none") -> None:
        """Run what the ledger does not hold; groups whose process died are tried one by one."""
        grouping = self.sweep.trains_groups
        for together in (True, False) if grouping else (False,):
            missing = [each for each in planned if each.id not in self.ledger.records]
            if not missing:
                return
            jobs = self.kind.groups(missing) if together else [[each] for each in missing]
            self._run(jobs, stopping, total=len(missing), count=len(jobs))

    def _suggested(self) -> None:
        from tune.tpe import Tpe

        settings = self.sweep.search
        known = list({r.planned.configuration for r in self._records()})
        # A kill may have come between two seeds.
        seeds = range(settings.seeds)
        self._fit([Planned(configuration=c, seed=s) for c in known for s in seeds])
        past = len(known)
        searcher = Tpe(
            self.kind.space,
            self.ledger,
            self._values,
            count=settings.trials,
            seeds=settings.seeds,
            directions=("maximize", "minimize") if self.objective else ("maximize",),
            seed=settings.seed + past,  # a resumed search does not repeat its first draws
        )
        left = max(0, settings.trials - past)
        if left:
            self._run(searcher, settings.stopping, total=left * settings.seeds, count=left)

    def _values(self, configuration: Any) -> list[float] | None:
        own = [r for r in self.ledger.records.values() if r.planned.configuration == configuration]
        if not own or any(record.status == "failed" for record in own):
            return None
        names = ["valid_accuracy", *([self.objective] if self.objective else [])]
        if any(name not in record.figures for record in own for name in names):
            return None
        return [sum(r.figures[name] for r in own) / len(own) for name in names]

    def _run(self, jobs: Any, stopping: Stopping, *, total: int, count: int) -> None:
        from tune.trials import run_trials

        trials = self.kind.trials(count, stopping)
        with Live(self.out, total, self.objective) as live:

            def heard(record: Record) -> None:
                if self.ledger.write(record):
                    log_fit(self.run, self.ledger, record, self.corpus)
                    live.heard(record, self.ledger.records)
                self.kind.over(record.planned)

            run_trials(
                jobs,
                trials,
                folder=self.ledger.scratch,
                count=count,
                on_record=heard,
                on_tick=live.tick,
            )
