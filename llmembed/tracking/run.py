"""One run: what can be written to it, and how it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmembed.tracking import values
from llmembed.tracking.driver import DRIVER_TAG
from llmembed.tracking.environment import environment
from llmembed.tracking.privacy import masked
from llmembed.tracking.reporter import RunReporter, metric_entities

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Tracked(Protocol):
    """Where a run is kept, and others beside it."""

    uri: str

    @property
    def client(self) -> MlflowClient: ...

    @property
    def experiment_id(self) -> str: ...

    def run(
        self,
        name: str,
        parent: Run | str | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> AbstractContextManager[Run]: ...


log = logging.getLogger(__name__)


def tag_text(key: str, value: Any) -> str:
    """A tag's value as MLflow takes it: masked, cut with a note."""
    return values.cut(values.text_of(key, value), values.TAG_CHARACTERS)


class Run:
    """One MLflow run; made by ``Tracking.run``. What is written to it has its secrets masked."""

    def __init__(self, *, tracking: Tracked, id: str, name: str) -> None:
        self.tracking = tracking
        self.id = id
        self.name = name
        self.outcome = "FINISHED"
        """How the run ends if nothing is raised; whoever sees its work fail sets ``FAILED``."""
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
            self.client.set_tag(self.id, values.clean_key(key), tag_text(key, value))

    def describe(self, markdown: str) -> None:
        """The note shown at the top of the run's page."""
        self.client.set_tag(self.id, "mlflow.note.content", tag_text("note", markdown))

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
        """End with MLflow's ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.client.set_terminated(self.id, status)
        self.client.delete_tag(self.id, DRIVER_TAG)  # of use only while it runs

    def abandon(self, status: str, error: BaseException) -> None:
        """End after ``error``, whose place no error of MLflow's may take."""
        try:
            self.end(status)  # first: a second Ctrl-C must not leave the run RUNNING
            self.tags({"llmembed.error": f"{type(error).__name__}: {error}"})
            self.flush()
        except Exception as second:
            log.warning("run %s could not be closed: %s", self.id, masked(str(second)))
