"""Fine-tunes below the address given, fails for good after some steps, and does it again: the
second time it must go on. Writes what it found to the file given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from finetune_to_kill import StopsAfter

from llmembed.cluster import RayRuntime
from llmembed.errors import WorkerError
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.places import source_of
from llmembed.finetuning.worker import EncoderWork
from llmembed.sharding import Sharding


def main(model: str, address: str, told: Path) -> None:
    from test_contract import TOPIC, make_examples

    work = EncoderWork(
        source=source_of(model),
        tasks=(TOPIC,),
        train=make_examples(48, 0),
        valid=make_examples(12, 1),
        config=FinetuneConfig(
            max_steps=6, batch=8, precision="fp32", log_steps=1, patience=None, checkpoint_steps=2
        ),
    )
    wanted = Sharding(
        parameters=20_000, batch=8, bf16=False, workers=1, zero="off", run=work.digest()
    )
    heard: list[float] = []
    with RayRuntime(address) as runtime:
        failed = ""
        try:
            runtime.train(StopsAfter(**vars(work), steps=4), name="tiny", sharding=wanted)
        except WorkerError as error:
            failed = str(error)
        done = runtime.train(
            work, name="tiny", sharding=wanted, listen=lambda row: heard.append(row["step"])
        )
    assert done.folder is not None
    best = sorted(str(p.relative_to(done.folder)) for p in done.folder.glob("best/**/*.json"))
    told.write_text(json.dumps({"failed": failed, "heard": heard, "best": best}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
