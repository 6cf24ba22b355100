"""``llmembed serve``: a local Ray or a running one, the application on it, until Ctrl-C."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmembed.errors import UserError, WorkerError

if TYPE_CHECKING:
    from rich.console import Console

    from serve.settings import ServeSettings

APPLICATION = "llmembed"
FAST = {
    # Requests go from HAProxy straight to a replica's own port: a Python proxy between them
    # costs 8 ms at rest and caps a machine at 200 requests/s (docs/lab-notes.md).
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # All of ours are idempotent: what died with a replica unanswered is asked again.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "2",
}
"""Read by Ray when it starts: set them for ``ray start`` too."""
LOCAL = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"}
"""On a cluster of our own nobody else's load balancer needs time to look away."""
_PORTS = ("HAPROXY_STATS", "HAPROXY_METRICS", "FALLBACK_PROXY_HTTP", "FALLBACK_PROXY_GRPC")
_FILES = {
    "CONFIG_FILE_LOC": "haproxy.cfg",
    "SOCKET_PATH": "admin.sock",
    "METRICS_SOCKET_PATH": "metrics.sock",
    "SERVER_STATE_FILE": "server-state",
}
_POLL_SECONDS = 0.2


def start(
    settings: ServeSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    address: str | None = None,
    ready: Callable[[str], None] | None = None,
    out: Console | None = None,
) -> None:
    """Serve until Ctrl-C. ``ready`` hears of the address once it answers; by default it is told
    to ``out``.

    Raises ``UserError`` when the port is taken or a model can't be had, ``WorkerError`` when the
    application does not come up.
    """
    from llmembed.cluster import connect, disconnect
    from llmembed.pipelines.console import console
    from serve.settings import key_digest
    from serve.summary import say_ready

    out = out or console()
    _check_port(host, port)
    key_digest(settings)
    own = address is None and "RAY_ADDRESS" not in os.environ
    for name, value in {**FAST, **(_places() if own else {})}.items():
        os.environ.setdefault(name, value)
    session = connect(address)
    running = False
    try:
        with out.status(f"loading {', '.join(settings.models)} …"):
            application = _built(settings, own=session.started)
            running = True
            where = _run(application, host, port, own=session.started)
        if ready is None:
            say_ready(out, where, settings)
        else:
            ready(where)
        while True:
            time.sleep(1)
    except RuntimeError as error:
        raise WorkerError(f"the application did not come up: {_reason(error)}") from error
    except KeyboardInterrupt:
        out.print("stopping; what is being answered is answered", style="dim")
    finally:
        _shut_down(everything=session.started, running=running)
        disconnect(session)


def _built(settings: ServeSettings, *, own: bool) -> Any:
    """The application, if there is room for it. Raises ``UserError``."""
    import ray
    from ray import serve

    from serve.app import app

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    application = app(settings.model_dump(exclude_unset=True))
    if not own:
        if APPLICATION in serve.status().applications:
            raise UserError(
                f"an application called {APPLICATION} is served on that cluster already: change it "
                "with `serve deploy`, or delete it first"
            )
        return application
    offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, unit in (("CPU", "cpus"), ("GPU", "gpus")):
        needed = sum(
            max(1, scaling.min_replicas) * getattr(scaling, unit)
            for scaling in (settings.ingress, settings.backbones)
            if scaling is settings.ingress or settings.placement == "apart"
        )
        if needed > offered.get(name, 0):
            raise UserError(
                f"the replicas ask for {needed:g} {unit}, and {offered.get(name, 0):g} are here: "
                f"lower ingress.{unit}, backbones.{unit} or min_replicas"
            )
    return application


def _run(application: Any, host: str, port: int, *, own: bool) -> str:
    """Bring the application up; returns where it answers."""
    from ray import serve

    serve.start(http_options={"host": host, "port": port}, logging_config=_logging())
    serve.run(application, name=APPLICATION, route_prefix="/", blocking=False)
    where = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    if own:  # elsewhere the port may lie on another machine
        _wait_until_healthy(where)
    return where


def _places() -> dict[str, str]:
    """Ports and files of a HAProxy that may not be the only one on this machine."""
    folder = tempfile.mkdtemp(prefix="llmembed-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = {**LOCAL, "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder}
    for variable, name in _FILES.items():
        found[f"RAY_SERVE_HAPROXY_{variable}"] = f"{folder}/{name}"
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in _PORTS]
    for variable, probe in zip(_PORTS, probes, strict=True):
        found[f"RAY_SERVE_{variable}_PORT"] = str(probe.getsockname()[1])
        probe.close()
    return found


def _logging() -> dict[str, Any]:
    return {"log_level": "WARNING", "enable_access_log": False}


def _check_port(host: str, port: int) -> None:
    if not 0 < port < 65_536:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host} can't be had ({error.strerror}): choose another with --port"
            ) from None


def _wait_until_healthy(where: str, *, seconds: float = 60.0) -> None:
    """HAProxy learns of a replica a moment after it is ready."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{where}/health", timeout=5) as answer:
                if json.load(answer).get("status") == "ok":
                    return
        except (OSError, ValueError):
            pass
        time.sleep(_POLL_SECONDS)
    raise WorkerError(f"the application runs, but {where}/health does not answer")


def _shut_down(*, everything: bool, running: bool) -> None:
    """Serve as a whole on a cluster of our own; elsewhere our application alone."""
    from ray import serve

    module: Any = serve
    if everything:
        module.shutdown()
    elif running:
        module.delete(APPLICATION)


def _reason(error: Exception) -> str:
    """What the replicas said, where they did; else what Ray Serve says."""
    from ray import serve

    told = [str(error)]
    for application in serve.status().applications.values():
        told += [status.message for status in application.deployments.values()]
    lines = [line.strip() for message in told for line in message.splitlines() if line.strip()]
    said = [line for line in lines if "Error: " in line]
    return said[-1].partition("Error: ")[2] if said else lines[-1]
