"""``python gloo_worker.py FOLDER RANK WORKERS ZERO PORT STOP``: one of several workers that train
as Ray Train's would, without Ray; kills itself once ``STOP`` steps are kept (0: never).

What a worker reports goes to ``FOLDER/kept``, merged over the workers, and is gone on from."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]


def main(place: Path, rank: int, workers: int, zero: int, port: int, stop: int) -> None:
    import torch.distributed as dist
    from test_contract import TAGS, TOPIC, make_examples
    from test_finetuning_workers import CONFIG

    from llmembed.cluster.deepspeed import configuration, going_on, prepare
    from llmembed.contract import WorkerContext
    from llmembed.finetuning.places import Source
    from llmembed.finetuning.worker import EncoderWork

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "LOCAL_WORLD_SIZE": str(workers),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    dist.init_process_group("gloo")
    prepare(gpus=False)
    kept = place / "kept"
    settings: Mapping[str, object] = configuration(zero, offload=False, bf16=False, gpus=False)
    if kept.is_dir():
        settings = going_on(settings, kept, workers=workers, converts=rank == 0, wait=dist.barrier)

    def report(metrics: Mapping[str, float], folder: Path | None) -> None:
        if folder is None:
            return
        dist.barrier()
        if rank == 0:
            shutil.rmtree(kept, ignore_errors=True)
        dist.barrier()
        for turn in range(workers):
            if turn == rank:
                shutil.copytree(folder, kept, dirs_exist_ok=True)
            dist.barrier()
        if stop and metrics["step"] >= stop:
            os.kill(os.getpid(), signal.SIGKILL)

    work = EncoderWork(
        source=Source(**json.loads((place / "source.json").read_text())),
        tasks=(TOPIC, TAGS),
        train=make_examples(64, 0),
        valid=make_examples(20, 1),
        config=CONFIG,
    )
    work(
        WorkerContext(
            rank=rank,
            world_size=workers,
            report=report,
            resume_from=kept if kept.is_dir() else None,
            deepspeed=settings,
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
