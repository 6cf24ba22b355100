"""Runs: one for each fit, nested where it belongs, ended whatever happens."""

from __future__ import annotations

import getpass
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.errors import ConfigError
from llmembed.tracking import values
from llmembed.tracking.connection import connect, is_database, is_remote, resolve_uri, ui_command
from llmembed.tracking.driver import Driver, Orphans
from llmembed.tracking.environment import environment
from llmembed.tracking.privacy import masked
from llmembed.tracking.reporter import RunReporter, metric_entities

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

log = logging.getLogger(__name__)

DRIVER_TAG = "llmembed.driver"
_RUNS_PER_PAGE = 500


class Tracking:
    """Where runs are kept: an MLflow address and one experiment, one for each data set.

    ``uri`` is any tracking address; None means ``MLFLOW_TRACKING_URI`` or else a SQLite file
    under ``files``, with artifacts under ``files/mlartifacts``. With a server the server decides
    where artifacts lie. Nothing is opened before it is needed.
    """

    def __init__(
        self, uri: str | None = None, experiment: str = "llmembed", *, files: str | Path = "files"
    ) -> None:
        self.uri = resolve_uri(uri, files)
        self.experiment = experiment
        self.files = files

    @property
    def ui_command(self) -> str:
        """The command that opens the page of these runs."""
        return ui_command(self.uri)

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client. Raises ``ConfigError`` when MLflow can't be reached."""
        return connect(self.uri)

    @cached_property
    def experiment_id(self) -> str:
        """The experiment's id; the experiment is made when there is none of that name."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(
                    self.client.create_experiment(
                        self.experiment, artifact_location=self._artifacts()
                    )
                )
            except MlflowException:
                # Another process may have made it in between; anything else comes up again.
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"The experiment {self.experiment!r} was deleted in MLflow at {masked(self.uri)}: "
                "restore it there or give another name."
            )
        return str(found.experiment_id)

    def _artifacts(self) -> str | None:
        if not is_database(self.uri):
            return None
        name = re.sub(r"[^\w.-]", "-", self.experiment)
        if is_remote(self.files):
            return f"{str(self.files).rstrip('/')}/mlartifacts/{name}"
        folder = Path(self.files).expanduser().resolve() / "mlartifacts" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder.as_uri()

    @contextmanager
    def run(
        self,
        name: str,
        parent: Run | str | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> Iterator[Run]:
        """One run; ``parent`` (or its id) nests it.

        It ends FINISHED, FAILED when an exception leaves the block, KILLED on Ctrl-C; the
        exception goes on. A run without a parent records the environment."""
        run = self._start(name, parent, tags or {}, description)
        try:
            if parent is None:
                run.environment()
            yield run
            run.flush()
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            run.abandon("KILLED" if stopped else "FAILED", error)
            raise
        run.end("FINISHED")

    def _start(
        self,
        name: str,
        parent: Run | str | None,
        tags: Mapping[str, Any],
        description: str | None,
    ) -> Run:
        own = {
            "mlflow.user": _user(),
            "mlflow.source.name": Path(sys.argv[0]).name or "python",
            "mlflow.source.type": "LOCAL",
            DRIVER_TAG: Driver.here().to_tag(),
        }
        if parent is not None:
            own["mlflow.parentRunId"] = parent if isinstance(parent, str) else parent.id
        if description:
            own["mlflow.note.content"] = description
        given = {values.clean_key(key): value for key, value in tags.items()}
        made = self.client.create_run(
            self.experiment_id,
            run_name=masked(name),
            tags={key: _tag(key, value) for key, value in {**given, **own}.items()},
        )
        return Run(tracking=self, id=made.info.run_id, name=name)

    def close_orphans(self) -> Orphans:
        """End, as KILLED, the runs of ours (of every experiment) that a driver on this machine
        left RUNNING and whose process is gone. Runs of living processes and of other machines
        stay as they are."""
        closed, unknown = [], 0
        for found in self._running():
            driver = Driver.from_tag(found.data.tags[DRIVER_TAG])
            gone = driver.is_gone() if driver is not None else None
            if gone is None:
                unknown += 1
            if driver is None or not gone:
                continue
            run_id = found.info.run_id
            self.client.set_tag(
                run_id,
                "llmembed.closed",
                f"the driver, process {driver.pid} on {driver.host}, was gone",
            )
            self.client.set_terminated(run_id, "KILLED", end_time=self._last_sign(found))
            closed.append(run_id)
        return Orphans(closed=tuple(closed), unknown=unknown)

    def _running(self) -> list[MlflowRun]:
        experiments = [str(found.experiment_id) for found in self.client.search_experiments()]
        runs: list[MlflowRun] = []
        token = None
        while experiments:
            page = self.client.search_runs(
                experiments,
                filter_string=f"attributes.status = 'RUNNING' AND tags.`{DRIVER_TAG}` LIKE '%'",
                max_results=_RUNS_PER_PAGE,
                page_token=token,
            )
            runs.extend(page)
            token = page.token
            if not token:
                break
        return runs

    def _last_sign(self, found: MlflowRun) -> int:
        """When the run last reported a metric, in ms since 1970, else when it started."""
        times: list[int] = [found.info.start_time]
        for key in found.data.metrics:
            times += [m.timestamp for m in self.client.get_metric_history(found.info.run_id, key)]
        return max(times)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _tag(key: str, value: Any) -> str:
    return values.cut(values.text_of(key, value), values.TAG_CHARACTERS)


class Run:
    """One MLflow run; made by ``Tracking.run``. What is written to it has its secrets masked."""

    def __init__(self, *, tracking: Tracking, id: str, name: str) -> None:
        self.tracking = tracking
        self.id = id
        self.name = name
        self._reporters: list[RunReporter] = []

    @property
    def client(self) -> MlflowClient:
        return self.tracking.client

    def params(self, params: Mapping[str, Any]) -> None:
        """Settings, nested ones as dotted keys. A value too long for MLflow is cut with a note,
        and is whole in an artifact under ``params/``."""
        from mlflow.entities import Param

        entities = []
        for name, value in values.flat(params):
            key, text = values.clean_key(name), values.text_of(name, value)
            rest = ""
            if len(text) > values.PARAM_CHARACTERS:
                rest = f"params/{key.replace('/', '_')}.txt"
                self.client.log_text(self.id, text, rest)
            entities.append(Param(key, values.cut(text, values.PARAM_CHARACTERS, rest=rest)))
        for start in range(0, len(entities), values.PARAMS_PER_BATCH):
            batch = entities[start : start + values.PARAMS_PER_BATCH]
            self.client.log_batch(self.id, params=batch)

    def tags(self, tags: Mapping[str, Any]) -> None:
        for key, value in tags.items():
            self.client.set_tag(self.id, values.clean_key(key), _tag(key, value))

    def describe(self, markdown: str) -> None:
        """The note shown at the top of the run's page."""
        self.client.set_tag(self.id, "mlflow.note.content", _tag("note", markdown))

    def metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Numbers, absent (None) ones left out. NaN and infinity, which charts and servers can't
        show, are named in the tag ``llmembed.not_finite`` instead."""
        entities, odd = metric_entities(metrics, step or 0)
        for start in range(0, len(entities), values.METRICS_PER_BATCH):
            batch = entities[start : start + values.METRICS_PER_BATCH]
            self.client.log_batch(self.id, metrics=batch)
        self.note_not_finite(odd)

    def note_not_finite(self, odd: Sequence[str]) -> None:
        if odd:
            known = self.client.get_run(self.id).data.tags.get("llmembed.not_finite", "")
            self.tags({"llmembed.not_finite": ", ".join([*filter(None, [known]), *odd])})

    def reporter(self, prefix: str = "") -> RunReporter:
        """A ``contract.Reporter`` that writes here in batches; flushed when the run ends."""
        reporter = RunReporter(self, prefix=prefix)
        self._reporters.append(reporter)
        return reporter

    def dataset(
        self, name: str, digest: str, n_rows: int, source: str, context: str = "train"
    ) -> None:
        """The data the run read. MLflow holds 36 characters of a digest; the whole one is in the
        data set's profile. MLflow takes one name and digest once for a run, so parts other than
        ``train`` carry their context in the name: ``r8 (test)``."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(
            name=name if context == "train" else f"{name} ({context})",
            digest=digest[: values.DIGEST_CHARACTERS],
            source_type=source.split("://", 1)[0] if "://" in source else "local",
            source=json.dumps({"uri": masked(source)}),
            profile=json.dumps({"num_rows": n_rows, "digest": digest}),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self.client.log_inputs(self.id, [DatasetInput(entity, tags)])

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A file, or a folder with all that is in it."""
        if Path(path).is_dir():
            self.client.log_artifacts(self.id, str(path), folder or Path(path).name)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def figure(self, png: str | Path) -> None:
        """A picture, under ``figures/``."""
        self.artifact(png, "figures")

    def text(self, text: str, path: str) -> None:
        self.client.log_text(self.id, masked(text), path)

    def json(self, data: Any, path: str) -> None:
        self.text(json.dumps(data, indent=2, ensure_ascii=False, default=str), path)

    def table(self, rows: Sequence[Mapping[str, Any]], path: str) -> None:
        """Rows as a table that MLflow's page shows: ``path`` ends in ``.json``."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = {column: [row.get(column) for row in rows] for column in columns}
        self.client.log_table(self.id, data, path)

    def environment(self) -> None:
        """Versions, processor and GPUs as ``environment.json``, the git commit as tags too."""
        found = environment()
        self.json(found, "environment.json")
        git = found["git"]
        tags = {
            "llmembed.python": found["python"],
            "llmembed.cpu": f"{found['cpu_count']} x {found['cpu']}",
            "llmembed.gpu": ", ".join(found["gpus"]) or "none",
            "mlflow.source.git.commit": git.get("commit"),
            "mlflow.source.git.branch": git.get("branch"),
            "mlflow.source.git.repoURL": git.get("remote"),
            "llmembed.git.changed": git.get("changed"),
        }
        self.tags({key: value for key, value in tags.items() if value not in (None, "")})

    def flush(self) -> None:
        """Write what the reporters still hold."""
        for reporter in self._reporters:
            reporter.flush()

    def end(self, status: str) -> None:
        self.client.set_terminated(self.id, status)

    def abandon(self, status: str, error: BaseException) -> None:
        """End after ``error``, whose place no error of MLflow's may take."""
        try:
            self.end(status)  # first: a second Ctrl-C must not leave the run RUNNING
            self.tags({"llmembed.error": f"{type(error).__name__}: {error}"})
            self.flush()
        except Exception as second:
            log.warning("run %s could not be closed: %s", self.id, masked(str(second)))
