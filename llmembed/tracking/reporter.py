"""Metrics by epoch, written in batches so that reporting every epoch costs next to nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from llmembed.tracking import values
from llmembed.tracking.privacy import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 5.0
_KEPT_AT_MOST = 100_000


def metric_entities(
    metrics: Mapping[str, float | None], step: int, prefix: str = ""
) -> tuple[list[Metric], list[str]]:
    """MLflow's form of ``metrics``, and the names of those that are not finite."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entities, odd = [], []
    for name, value in metrics.items():
        key, finite = values.clean_key(prefix + name), values.number(value)
        if finite is not None:
            entities.append(Metric(key, finite, now, step))
        elif value is not None:
            odd.append(f"{key}={float(value)} at step {step}")
    return entities, odd


class Written(Protocol):
    """The run that metrics are written to."""

    id: str

    @property
    def client(self) -> MlflowClient: ...

    def note_not_finite(self, odd: list[str]) -> None: ...


class RunReporter:
    """A ``contract.Reporter`` over a run. Keeps metrics and writes them every few seconds, when
    there are many, and at the end of the run. An MLflow that is away for a while does not stop a
    fit: what could not be written is kept and tried again."""

    def __init__(self, run: Written, *, prefix: str = "") -> None:
        self._run = run
        self._prefix = prefix
        self._kept: list[Metric] = []
        self._odd: list[str] = []
        self._written_at = time.monotonic()
        self._lock = threading.Lock()

    def report(self, metrics: Mapping[str, float], *, step: int) -> None:
        entities, odd = metric_entities(metrics, step, self._prefix)
        with self._lock:
            self._kept += entities
            self._odd += odd
            waited = time.monotonic() - self._written_at
            if waited < _FLUSH_SECONDS and len(self._kept) < values.METRICS_PER_BATCH:
                return
        try:
            self.flush()
        except Exception as error:
            log.warning("metrics kept for later, MLflow refused: %s", masked(str(error)))
            with self._lock:
                del self._kept[:-_KEPT_AT_MOST]

    def flush(self) -> None:
        """Write all that is kept. Raises what MLflow raises; nothing is lost by that."""
        with self._lock:
            self._written_at = time.monotonic()
            while self._kept:
                batch = self._kept[: values.METRICS_PER_BATCH]
                self._run.client.log_batch(self._run.id, metrics=batch)
                del self._kept[: len(batch)]
            self._run.note_not_finite(self._odd)
            self._odd = []
