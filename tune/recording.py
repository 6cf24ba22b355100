"""A sweep in MLflow: one run, each fit a nested run, pictures in the parent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.tracking import Driver, Run, Tracking
from tune.board import Standing, pareto, words
from tune.ledger import Ledger, Record
from tune.models.space import TrainingConfiguration
from tune.settings import Sweep

if TYPE_CHECKING:
    from llmembed.texts import Corpus

DRIVER_TAG = "llmembed.driver"
BEST = "llmembed.best"


@contextmanager
def reopened(tracking: Tracking, run_id: str, name: str) -> Iterator[Run]:
    """The run of a sweep that is resumed, RUNNING again; ends as ``Tracking.run`` does."""
    client = tracking.client
    client.set_tag(run_id, DRIVER_TAG, Driver.here().to_tag())
    client.update_run(run_id, status="RUNNING")
    run = Run(tracking=tracking, id=run_id, name=name)
    try:
        yield run
        run.flush()
    except BaseException as error:
        run.abandon("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
        raise
    run.end("FINISHED")


def log_corpus_once(run: Run, sweep: Sweep, corpus: Corpus) -> None:
    """Params, data and space of the sweep, as MLflow takes them once."""
    if "llmembed.corpus" in run.client.get_run(run.id).data.tags:
        return
    from llmembed.methods.frozen.settings import FusedSettings
    from llmembed.pipelines.compare.recording import log_corpus

    method = sweep.method or FusedSettings(kind="fused")
    log_corpus(run, sweep.experiment({"tuned": method}), corpus)
    run.params({"search": sweep.search.model_dump(), "space": sweep.space})
    told = {"head": sweep.head} if sweep.method is None else {"method": method.model_dump()}
    run.params(told)
    run.json(sweep.model_dump(mode="json"), "sweep.json")


def log_fit(parent: Run, ledger: Ledger, record: Record, corpus: Corpus) -> None:
    """One fit as a nested run; its params are flat, as parallel coordinates want them."""
    name = f"{record.planned.configuration.run_name} seed {record.planned.seed}"
    tags = {
        "llmembed.fit": record.planned.id,
        "llmembed.status": record.status,
        "llmembed.grouped": record.grouped,
        "llmembed.energy": "estimated" if record.energy_is_estimated else "measured",
        **({"llmembed.reason": record.reason} if record.reason else {}),
    }
    with parent.tracking.run(
        name,
        parent=parent,
        tags=tags,
        description=record.reason and f"**{record.status}:** {record.reason}",
    ) as run:
        run.params({**flat(record), "corpus": corpus.name})
        run.metrics(record.figures)
        reporter = run.reporter()
        for epoch, accuracy in enumerate(record.history, start=1):
            reporter.report({"epoch/valid_accuracy": accuracy}, step=epoch)
    _ended(parent, ledger, record, run.id)


def _ended(parent: Run, ledger: Ledger, record: Record, run: str) -> None:
    if record.status != "ok":
        parent.client.set_terminated(run, "FAILED" if record.status == "failed" else "KILLED")
    ledger.tell_run(record, run)


def log_missing(parent: Run, ledger: Ledger, corpus: Corpus) -> None:
    """The fits whose run the ledger does not know: the driver was killed before it was logged, or
    before it was noted that it is."""
    missing = [record for record in ledger.records.values() if record.run is None]
    if not missing:
        return
    logged: dict[str, str] = {}
    place = [parent.tracking.experiment_id]
    for status in ("FINISHED", "FAILED", "KILLED"):
        wanted = f"tags.`mlflow.parentRunId` = '{parent.id}' and attributes.status = '{status}'"
        token: str | None = None
        while True:
            page = parent.client.search_runs(place, wanted, max_results=1000, page_token=token)
            for run in page:
                # One that was cut off was closed as killed when this sweep was opened again.
                cut = status == "KILLED" and run.data.tags.get("llmembed.status") != "stopped"
                if "llmembed.fit" in run.data.tags and not cut:
                    logged[run.data.tags["llmembed.fit"]] = run.info.run_id
            token = page.token
            if not token:
                break
    for record in missing:
        if record.planned.id in logged:
            _ended(parent, ledger, record, logged[record.planned.id])
        else:
            log_fit(parent, ledger, record, corpus)


def end_as(run: Run, status: str) -> None:
    """Change how a run that is over ended."""
    run.client.set_terminated(run.id, status)


def flat(record: Record) -> dict[str, Any]:
    """The settings of a fit, each a plain value; what is of no matter to it is left out."""
    own = record.planned.configuration.to_json()
    joined = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in own.items()}
    return {
        **{key: value for key, value in joined.items() if value not in (None, "")},
        "seed": record.planned.seed,
        "configuration": record.planned.configuration.id,
    }


def log_outcome(
    run: Run,
    ledger: Ledger,
    found: Sequence[Standing],
    winner: Standing | None,
    objective: str | None,
) -> None:
    """The table, the pictures, and the tag on the best."""
    everyone = [each.configuration for each in found]
    rows = [row(each, everyone) for each in found]
    if rows:
        run.table(rows, "configurations.json")
    if winner is not None:
        run.metrics({f"best/{name}": value for name, value in winner.figures.items()})
        run.tags({BEST: words(winner.configuration, everyone)})
        for record in ledger.records.values():
            if record.run is not None:
                best = record.planned.configuration == winner.configuration
                if best:
                    run.client.set_tag(record.run, BEST, "yes")
    draw_all(run, ledger.records, found, objective)


def row(each: Standing, everyone: Sequence[Any]) -> dict[str, Any]:
    """One configuration as a row of the table."""
    return {
        "configuration": words(each.configuration, everyone),
        "id": each.configuration.id,
        "seeds": each.seeds,
        "valid_accuracy": each.accuracy,
        "sd": each.sd,
        **{k: v for k, v in each.figures.items() if k != "valid_accuracy"},
        "settings": each.configuration.to_json(),
    }


def draw_all(
    run: Run,
    records: Mapping[str, Record],
    found: Sequence[Standing],
    objective: str | None,
) -> None:
    from tune.pictures import by_fusion, by_setting, by_sigma, front

    if not found:
        return
    told = [each.configuration for each in found]
    trained = isinstance(told[0], TrainingConfiguration)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawn = []
        if trained:
            drawn += by_setting(records, told, folder)
        else:
            drawn.append(by_fusion(records, folder / "accuracy_by_fusion.png"))
            if len({getattr(each, "sigma", None) for each in told} - {None}) > 1:
                drawn.append(by_sigma(records, folder / "accuracy_by_sigma.png"))
        cost = objective or "parameters"
        drawn.append(front(found, pareto(found, cost), cost, folder / "pareto_front.png"))
        for path in drawn:
            run.figure(path)
