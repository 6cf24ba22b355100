"""A real Ray head on the loopback, as a cluster's users have one; several tests' programs."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running head. ``address``: of its dashboard; ``gcs``: what ``RAY_ADDRESS`` takes;
    ``files``: what ``LLMEMBED_FILES`` names in its jobs."""

    address: str
    gcs: str
    files: Path
    environment: dict[str, str] = field(repr=False)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )

    def ray_job(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """``ray job submit --working-dir . -- …``, as the README says."""
        words = ["job", "submit", "--address", self.address, "--working-dir", "."]
        return self.run(str(BIN / "ray"), *words, "--", *entrypoint)

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``python -m jobs.submit …``."""
        return self.run(sys.executable, "-m", "jobs.submit", "--address", self.address, *words)


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(s.getsockname()[1]) for s in sockets]
    for each in sockets:
        each.close()
    return ports


def lists_jobs(address: str, token: str) -> bool:
    """Whether jobs can be submitted; ``ray job list`` would take seconds to ask the same."""
    request = urllib.request.Request(
        f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def running_head(files: Path, **more: str) -> Iterator[Cluster]:
    """A head with token auth; ``more``: variables of its environment."""
    # Ray puts sockets there, whose paths must be short.
    place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token = place / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LLMEMBED_"))}
    environment |= {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "LLMEMBED_FILES": str(files),
        "RAY_TMPDIR": str(place),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }
    port, dashboard, agent, client = free_ports(4)
    log = place / "head.log"
    with log.open("w") as output:
        head = subprocess.Popen(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4",
                "--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-host=127.0.0.1",
                f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
                f"--ray-client-server-port={client}", "--min-worker-port=0",
                "--max-worker-port=0", f"--temp-dir={place}",
            ],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    found = Cluster(
        address=f"http://127.0.0.1:{dashboard}",
        gcs=f"127.0.0.1:{port}",
        files=files,
        environment=environment,
    )
    try:
        end = time.monotonic() + 120
        while not lists_jobs(found.address, token.read_text()):
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < end, "the head does not answer within two minutes"
            time.sleep(0.1)
        yield found
    finally:
        head.kill()  # what it started ends with it; asked politely, it takes half a minute
        head.wait()
        shutil.rmtree(place, ignore_errors=True)
