"""What a cluster is asked before work is sent there."""

from __future__ import annotations

import os
import subprocess
import sys

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
