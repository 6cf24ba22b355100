"""What a metric needs of validation is brought together from all workers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import torch.distributed as dist

from llmembed.contract import Task
from llmembed.finetuning.trainable import of_all_workers

TASK = Task(name="t", classes=("a", "b", "c"), metric="macro_f1")
OTHER = """
import sys
import torch.distributed as dist
from test_judged_by_all_workers import batches
from llmembed.finetuning.trainable import of_all_workers
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
print(len(of_all_workers(batches(1), 2)))
dist.barrier()
"""


def batches(rank: int):
    """Two batches of rank 0, one of rank 1, as ``HeadedEncoder.kept`` gives them."""
    found = []
    for number in range(2 - rank):
        rng = np.random.default_rng([rank, number])
        truth = rng.integers(0, 3, 40)
        found.append({"t": (rng.dirichlet((1, 1, 1), 40).astype(np.float32), truth, truth)})
    return found


def test_every_worker_comes_to_the_value_of_all_rows(tmp_path):
    from transformers import BertConfig, BertModel

    from llmembed.finetuning.heads import HeadedEncoder
    from llmembed.metrics.deciding import judged

    place = f"file://{tmp_path}/meet"
    folder = __file__.rpartition("/")[0]
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, place], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    dist.init_process_group("gloo", init_method=place, rank=0, world_size=2)
    try:
        kept = of_all_workers(batches(0), 2)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    assert other.communicate(timeout=120)[0].strip() == "3" and len(kept) == 3
    tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    plain = replace(TASK, name="plain", metric=None)
    model = HeadedEncoder(BertModel(tiny), [TASK, plain])
    assert model.judged == ("t",) and model.measures == {"t": "macro_f1", "plain": "accuracy"}
    whole = [np.concatenate(part) for part in zip(*(each["t"] for each in kept), strict=True)]
    assert model.values(kept) == {"t": judged(TASK, whole[1], whole[0])}
