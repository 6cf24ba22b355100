"""A sweep as a job: a real head on this machine, this repository as working directory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from sweep_data import overrides, settings, write_csv

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def head(tmp_path):
    """(address, environment) of a running head."""
    place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets need short paths
    token = place / "token"
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef0123456789abcdef")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "LLMEMBED_FILES": str(tmp_path / "files"),
        "RAY_TMPDIR": str(place),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    port, dashboard, agent, client = free_ports(4)
    words = f"""start --head --block --num-cpus=4 --node-ip-address=127.0.0.1 --port={port}
        --dashboard-host=127.0.0.1 --dashboard-port={dashboard}
        --dashboard-agent-listen-port={agent} --ray-client-server-port={client}
        --min-worker-port=0 --max-worker-port=0 --temp-dir={place}"""
    log = place / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(BIN / "ray"), *words.split()],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        end = time.monotonic() + 120
        listing = [str(BIN / "ray"), "job", "list", "--address", address]
        while subprocess.run(listing, env=environment, capture_output=True).returncode:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "the head does not answer within two minutes"
        yield address, environment
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(place, ignore_errors=True)


def test_a_submitted_sweep_names_a_winner(head, tmp_path, tiny_bert):
    address, environment = head
    given = settings(write_csv(tmp_path / "news.csv"), tiny_bert, tmp_path / "files")
    given["space"] = {"fusion": ["last", "co_avg"], "sigma": [0.1, 0.5]}
    given.pop("runtime.files")
    words = [*overrides(given), "--name", "job", "--json", "sweep.json"]
    ran = subprocess.run(
        [
            str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", ".",
            "--", "python", "-m", "jobs.tune", *words,
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "winner:" in ran.stdout and "succeeded" in ran.stdout
    figures = json.loads((tmp_path / "files" / "sweep.json").read_text())
    assert len(figures["configurations"]) == 3
    assert len(list((tmp_path / "files" / "sweeps" / "job" / "fits").glob("*.json"))) >= 4
