"""Which MLflow is meant, reaching it, and the command that opens its page."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from llmembed.errors import ConfigError
from llmembed.tracking.privacy import HIDDEN, masked

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks", "uc")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PROBE_SECONDS = 10.0


def resolve_uri(uri: str | None, files: str | Path) -> str:
    """The tracking address to use: ``uri``, else ``MLFLOW_TRACKING_URI``, else a SQLite file
    under ``files``. Relative SQLite paths become absolute, so that workers with another current
    folder mean the same file. Raises ``ConfigError`` for an address MLflow can't track to."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is None:
        if is_remote(files):
            raise ConfigError(
                f"Runs can't be tracked under {masked(str(files))}, because SQLite needs a local "
                "folder: set the tracking address (tracking.uri or MLFLOW_TRACKING_URI)."
            )
        return f"sqlite:///{Path(files).expanduser().resolve() / 'mlflow.db'}"
    scheme = uri.split(":", 1)[0].split("+", 1)[0]
    if scheme not in (*_DATABASES, *_SERVERS):
        raise ConfigError(
            f"MLflow can't track to {masked(uri)!r}; give sqlite:///FILE, a database address "
            "(postgresql://, mysql://) or a server (http://, https://)."
        )
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        path = uri.removeprefix("sqlite:///")
        if path and path != ":memory:":
            return f"sqlite:///{Path(path).resolve()}"
    return uri


def is_remote(files: str | Path) -> bool:
    """Whether ``files`` is an address such as ``s3://bucket/x`` rather than a local folder."""
    return re.match(r"^[a-z][a-z0-9+.-]+://", str(files)) is not None


def is_database(uri: str) -> bool:
    """Whether this process itself writes to a database, rather than a server doing it."""
    return uri.split(":", 1)[0].split("+", 1)[0] in _DATABASES


def quiet_mlflow() -> None:
    """Before MLflow is imported: no telemetry, no printed links, no log lines of its migrations.
    What the user has set stays."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if "mlflow" in sys.modules:  # it has read its variables already
        logging.getLogger("mlflow").setLevel((os.environ["MLFLOW_LOGGING_LEVEL"] or "INFO").upper())


def connect(uri: str) -> MlflowClient:
    """A client of the MLflow at ``uri`` (tracking and registry alike). Creates a SQLite file on
    first use. Raises ``ConfigError`` when it can't be reached."""
    quiet_mlflow()
    _probe(uri)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if uri.startswith("sqlite:///") and not uri.endswith(":memory:"):
        try:
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder of {uri} can't be made: {error.strerror}.") from error
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)  # opens the database, which is otherwise lazy
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise ConfigError(
            f"MLflow can't use {masked(uri)}: {masked(str(error)).splitlines()[0]}"
        ) from None  # the cause's own text may hold the password
    return client


def _probe(uri: str) -> None:
    """Ask once whether somebody listens; MLflow's own retries would take minutes."""
    try:
        parts = urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme.split("+", 1)[0])
    except ValueError as error:
        raise ConfigError(f"{masked(uri)!r} is no address: {error}.") from None
    try:
        if parts.scheme in ("http", "https"):
            host = parts.netloc.rpartition("@")[2]
            address = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health"
            urlopen(address, timeout=_PROBE_SECONDS).close()
        elif port is not None and parts.hostname:
            socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS).close()
    except HTTPError:
        return  # somebody answered; what they think of /health does not matter
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(f"Nobody answers at {masked(uri)}: {reason}.") from None


def ui_command(uri: str) -> str:
    """The command line (or sentence) that opens MLflow's page for the runs at ``uri``.

    One worker and no job runner: MLflow's defaults start some ten processes. A password in the
    address is not printed."""
    if not is_database(uri):
        return f"open {masked(uri)} in a browser"
    shown = masked(uri)
    store = shown if HIDDEN not in shown else shown.replace(HIDDEN, "USER:PASSWORD")
    return shlex.join(
        [
            "env",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
            "MLFLOW_DISABLE_TELEMETRY=true",
            _mlflow_program(),
            *("ui", "--backend-store-uri", store, "--workers", "1"),
        ]
    )


def _mlflow_program() -> str:
    """``mlflow`` when the shell finds this environment's one, else the path to it."""
    ours = Path(sys.executable).parent / "mlflow"
    found = shutil.which("mlflow")
    if not ours.exists() or (found is not None and Path(found).resolve() == ours.resolve()):
        return "mlflow"
    try:
        return str(ours.relative_to(Path.cwd()))
    except ValueError:
        return str(ours)
