"""Where runs are kept and how they begin: one for each fit, nested where it belongs."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.errors import ConfigError
from llmembed.tracking import values
from llmembed.tracking.connection import connect, is_database, is_remote, resolve_uri, ui_command
from llmembed.tracking.driver import DRIVER_TAG, Driver, Orphans
from llmembed.tracking.privacy import HIDDEN, masked
from llmembed.tracking.run import Run, tag_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

_RUNS_PER_PAGE = 500
_LOCAL_PAGE = "http://127.0.0.1:5000"  # mlflow ui, unless told another port


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

    @property
    def page(self) -> str:
        """Where a browser finds the runs of this experiment once ``ui_command`` runs (or on the
        server). The parameter asks for the view of training runs; MLflow opens another one."""
        base = _LOCAL_PAGE if is_database(self.uri) else masked(self.uri).replace(f"{HIDDEN}@", "")
        runs = f"#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"
        return f"{base.rstrip('/')}/{runs}"

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client. Raises ``ConfigError`` when MLflow can't be reached."""
        return connect(self.uri)

    @cached_property
    def experiment_id(self) -> str:
        """The experiment's id; the experiment is made when there is none of that name."""
        client = self.client
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(
                    client.create_experiment(
                        self.experiment,
                        artifact_location=self._artifacts(),
                    )
                )
            except MlflowException:
                # Another process may have made it in between; anything else comes up again.
                found = client.get_experiment_by_name(self.experiment)
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
        run.end(run.outcome)

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
            tags={key: tag_text(key, value) for key, value in {**given, **own}.items()},
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
            self.client.delete_tag(run_id, DRIVER_TAG)
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
