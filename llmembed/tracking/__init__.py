"""All of MLflow: runs, metrics, artifacts, the logged classifier and its registry.

::

    tracking = Tracking(uri=None, experiment="r8", files="files")
    tracking.close_orphans()                       # runs that a killed driver left RUNNING
    with tracking.run("compare") as sweep, tracking.run("probe", parent=sweep) as run:
        run.params({...})
        run.dataset("r8", digest=corpus.digest, n_rows=5485, source="...", context="train")
        method.fit(..., reporter=run.reporter())
        registered = register(run, folder, name="r8", ...)     # champion or challenger

MLflow is imported when a run is first asked for, not with this package. By default everything
lies in one SQLite file under the files folder; any tracking address works. Creating that SQLite
file takes seconds once (MLflow's schema migrations).
"""

from __future__ import annotations

from llmembed.tracking.connection import resolve_uri, ui_command
from llmembed.tracking.driver import Driver, Orphans
from llmembed.tracking.privacy import masked
from llmembed.tracking.pyfunc import LoggedClassifier, log_classifier
from llmembed.tracking.registry import (
    Registered,
    champion,
    download,
    holder_of,
    logged_json,
    register,
)
from llmembed.tracking.reporter import RunReporter
from llmembed.tracking.run import Run
from llmembed.tracking.runs import Tracking

__all__ = [
    "Driver",
    "LoggedClassifier",
    "Orphans",
    "Registered",
    "Run",
    "RunReporter",
    "Tracking",
    "champion",
    "download",
    "holder_of",
    "log_classifier",
    "logged_json",
    "masked",
    "register",
    "resolve_uri",
    "ui_command",
]
