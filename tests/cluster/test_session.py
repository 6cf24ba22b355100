"""What a cluster is asked before work is sent there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmembed.cluster.session import connect
from llmembed.errors import UserError

ASK = """
import os, sys
from llmembed.cluster.session import gpus_at
from llmembed.experiment import BackboneSettings, Experiment
from llmembed.pipelines.methods import Assembler

def dtype(**runtime):
    methods = {"tfidf": {"kind": "lexical"}}
    assembler = Assembler(Experiment(methods=methods, data={"source": "r8"}, runtime=runtime))
    words = "auto", "float32"
    return [assembler._dtype(BackboneSettings(model="minilm", dtype=each)) for each in words]

before = gpus_at(), "ray" in sys.modules
import ray
ray.init(address="local", num_cpus=1, num_gpus=3, include_dashboard=False, logging_level="ERROR")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the driver has none of them
print(before, gpus_at(), dtype(), dtype(local=True), dtype(gpus_per_actor=0))
"""


def test_a_gpu_cluster_reads_in_bfloat16_whatever_the_driver_has() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    told = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip().splitlines()[-1] == (
        "(0.0, False) 3.0 ['bfloat16', 'float32'] ['auto', 'float32'] ['auto', 'float32']"
    )


@pytest.mark.parametrize("address", ["http://head:8265", "https://head:8265/", "http://head"])
def test_the_port_for_jobs_is_no_cluster(address: str) -> None:
    with pytest.raises(UserError, match=r"ray job submit.*ray://head:10001, or head:6379"):
        connect(address)


START = """
from llmembed.cluster.session import connect
from llmembed.errors import UserError
try:
    connect()
except UserError as error:
    print(error)
"""


def test_a_temporary_folder_with_too_long_a_path_is_told(tmp_path: Path) -> None:
    place = tmp_path / ("long" * 30)
    place.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["RAY_TMPDIR"] = str(place)
    told = subprocess.run(
        [sys.executable, "-c", START], env=environment, capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert "too long a path for sockets: set RAY_TMPDIR" in told.stdout
