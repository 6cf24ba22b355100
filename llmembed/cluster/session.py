"""Starting a local Ray, or connecting to the cluster a job runs on."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmembed.errors import UserError

LEAST_LOGICAL_CPUS = 4
"""A local Ray offers at least this many CPUs, whatever the machine has: a pool of actors that
holds every CPU leaves nothing for reading, and Ray Data then waits for ever."""

REACH_SECONDS = 10.0
ADDRESS_VARIABLE = "RAY_ADDRESS"
_CORE_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_SKIPPED_LINES = "RAY_DEDUP_LOGS_SKIP_REGEX"
_RETRIED = (
    r"^Task .*submit failed\. There are|^A worker died or was killed while executing"
    r"|^Task ServeController\.graceful_shutdown failed"
    r"|^WARNING: \d+ PYTHON worker processes have been started"
)
"""What Ray prints of a worker that was killed, a screenful, before its work is done again, of
a controller that ended as it was told to, and of sweeps whose trials wait for workers of their own.
Work that fails for good raises instead."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """``started``: whether this process started the cluster and is to stop it. ``cores``: the
    processor cores work may keep busy, on all ``nodes`` machines together."""

    started: bool
    cores: int
    nodes: int


def cores_here() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def connect(address: str | None = None, *, dashboard: bool = False) -> Session:
    """Connect to ``address`` (``auto``, ``ray://…``, ``HOST:PORT``) or the cluster named by
    ``RAY_ADDRESS``, as inside a submitted job; with neither, start one on this machine alone.

    ``dashboard``: of a cluster that is started. Without it a training that is ended from outside
    (as Ray Tune ends poor trials) leaves its workers' places taken: Ray Train's cleaner asks the
    dashboard whether the training still lives.

    A connection that exists already is used as it is. Raises ``UserError`` when the cluster can't
    be reached.
    """
    # Ray reads it once, on import.
    os.environ.setdefault(_SKIPPED_LINES, _RETRIED)
    import ray

    address = address or os.environ.get(ADDRESS_VARIABLE)
    if address is not None and address != "local":
        _refuse_job_port(address)
    if ray.is_initialized():
        return _session(started=False)
    if address is None or address == "local":
        try:
            with _own_terminate():
                _start(dashboard=dashboard)
        except Exception as error:  # Ray says with a bare one that a start took too long
            raise UserError(f"Ray can't be started here: {_first_line(error)}") from error
        return _session(started=True)
    try:
        _check_reachable(address)
        with _quiet_core(), _own_terminate():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster can be reached at {address}: {_first_line(error)}"
        ) from error
    return _session(started=False)


def _refuse_job_port(address: str) -> None:
    """Raise ``UserError`` at an address of the port that takes jobs, or of another scheme."""
    scheme, mark, rest = address.partition("://")
    if mark and scheme != "ray":
        host = rest.split("/")[0].rpartition(":")[0] or rest.split("/")[0] or "HOST"
        raise UserError(
            f"{address} is no address of a Ray cluster ({scheme}:// is for `ray job submit`): give "
            f"ray://{host}:10001, or {host}:6379 on a machine of the cluster"
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    if "AF_UNIX" in text:
        return "its temporary folder has too long a path for sockets: set RAY_TMPDIR to a short one"
    return text.splitlines()[0] if text else repr(error)


def gpus_at(address: str | None = None) -> float:
    """Of the cluster at ``address`` or named by ``RAY_ADDRESS``, which is connected to. 0 where
    neither is: work then stays on this machine, whose hardware this process knows."""
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
        if (address or os.environ.get(ADDRESS_VARIABLE) or "local") == "local":
            return 0.0
        connect(address)
    import ray

    return float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]


def disconnect(session: Session) -> None:
    """Stop the cluster that ``connect`` started; one that was found stays."""
    if session.started:
        import ray

        ray.shutdown()


def _start(*, dashboard: bool) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _quiet_core():
        ray.init(
            # Without this Ray would look for some other cluster on this machine.
            address="local",
            num_cpus=max(LEAST_LOGICAL_CPUS, cores_here()),
            include_dashboard=dashboard,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextmanager
def _own_terminate() -> Iterator[None]:
    """Ray puts handlers of its own for SIGTERM into the driver, one of which prints where the
    process stood and ends it at once."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Ray's core writes to the terminal on its own, for every pool of actors a line that looks
    like an error. It reads how much to say once, when it is started, and says that it did."""
    before = os.environ.get(_CORE_LEVEL)
    os.environ.setdefault(_CORE_LEVEL, "fatal")
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        if before is None:
            os.environ.pop(_CORE_LEVEL, None)


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes. Raises ``OSError``."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()


def _session(*, started: bool) -> Session:
    import ray

    nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in nodes if node["Alive"]]
    return Session(
        started=started,
        cores=cores_of(alive, here=socket.gethostname()),
        nodes=max(1, len(alive)),
    )


def cores_of(nodes: Sequence[Mapping[str, Any]], *, here: str) -> int:
    """The cores of ``nodes`` as ``ray.nodes`` tells of them: what they offer, but of a single
    machine that is the one called ``here`` its cores, though Ray may offer more."""
    offered = max(1, int(sum(node["Resources"].get("CPU", 0) for node in nodes)))
    if len(nodes) == 1 and nodes[0]["NodeManagerHostname"] == here:
        return min(offered, cores_here())
    return offered
