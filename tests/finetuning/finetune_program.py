"""``python finetune_program.py FOLDER``: begins what ``test_finetuning_workers`` says there, on a
Ray of its own, and waits to be killed after the first checkpoint."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDERS = [str(HERE), str(HERE.parent)]


def main(place: Path) -> None:
    from finetune_to_kill import Hangs
    from test_contract import TAGS, TOPIC, make_examples
    from test_finetuning_workers import CONFIG, sharding

    from llmembed.cluster import RayRuntime
    from llmembed.finetuning.places import Source

    told = json.loads((place / "told.json").read_text())
    work = Hangs(
        source=Source(**told["source"]),
        tasks=(TOPIC, TAGS),
        train=make_examples(64, 0),
        valid=make_examples(20, 1),
        config=CONFIG,
        mark=Path(told["mark"]),
    )
    assert work.digest() == told["run"]
    wanted = sharding(
        workers=told["workers"],
        zero=told["zero"],
        offload="auto" if told["zero"] == "off" else False,
        run=told["run"],
    )
    with RayRuntime(place / "files") as runtime:
        runtime.train(work, name="moved", sharding=wanted)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, os.environ.get("PYTHONPATH", "")])
    sys.path[:0] = FOLDERS
    main(Path(sys.argv[1]))
