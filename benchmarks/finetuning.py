"""The same losses however a model is shared out: ``python benchmarks/finetuning.py --json FILE``.

A small Llama built here (random weights, tokenizer trained on the texts) is fully fine-tuned on a
benchmark's tasks, consolidated, in float32 for a number of steps with the same rows in every step:
in this process, on one worker, on two workers without DeepSpeed, with ZeRO 1, 2, 3, ZeRO 2 and 3
with offload, and with ZeRO 3 after a worker was killed by SIGKILL half way. Reported of each: the
largest relative difference of its losses from those in this process, of its final weights the
largest difference, seconds, tokens a second, peak memory of the first worker, joules.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from running import Figures, parse

from llmembed.contract import Trained, WorkerContext
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.worker import DecoderWork
from llmembed.sharding import Sharding

WAYS: dict[str, dict[str, Any]] = {
    "1 worker": {"workers": 1, "zero": "off"},
    "2 workers": {"workers": 2, "zero": "off"},
    "2 workers, ZeRO 1": {"workers": 2, "zero": 1, "offload": False},
    "2 workers, ZeRO 2": {"workers": 2, "zero": 2, "offload": False},
    "2 workers, ZeRO 3": {"workers": 2, "zero": 3, "offload": False},
    "2 workers, ZeRO 2 with offload": {"workers": 2, "zero": 2, "offload": True},
    "2 workers, ZeRO 3 with offload": {"workers": 2, "zero": 3, "offload": True},
    "2 workers, ZeRO 3, killed": {"workers": 2, "zero": 3, "offload": False},
}
KILLED = "2 workers, ZeRO 3, killed"


@dataclass(frozen=True, kw_only=True)
class DiesOnce(DecoderWork):
    """Kills its last worker once, after the first checkpoint of the run ``name`` was kept; ``mark``
    is the file in the runtime's folder that says so."""

    mark: Path
    name: str

    def __call__(self, context: WorkerContext) -> None:
        def report(metrics: Mapping[str, float], folder: Path | None) -> None:
            context.report(metrics, folder)
            last = context.rank == context.world_size - 1
            if folder is not None and last and not self.mark.exists():
                end = time.monotonic() + 150
                # Of this run alone: those before it lie in the same folder.
                kept = f"train/{self.name}-*/checkpoint_manager_snapshot.json"
                while not list(self.mark.parent.glob(kept)):
                    assert time.monotonic() < end, "no checkpoint was kept"
                    time.sleep(0.1)
                self.mark.touch()
                os.kill(os.getpid(), 9)

        super().__call__(replace(context, report=report))


def prepared(args: argparse.Namespace, folder: Path) -> DecoderWork:
    """The small model and the rows it is trained on."""
    from llmembed.experiment import Data
    from llmembed.finetuning.places import source_of
    from llmembed.finetuning.untrained import build_llama
    from llmembed.methods.demonstrations import Demonstrations
    from llmembed.methods.finetuned.decoder import Decoder
    from llmembed.methods.finetuned.decoder_rows import AnswerEncoder
    from llmembed.pipelines.corpus import make_corpus

    rows = args.steps * args.batch
    corpus = make_corpus(Data(source=args.data, tasks=args.tasks, limit=rows), str(folder))
    nothing = Demonstrations(kind="none", k=0, pool=corpus.train.select([]))
    method = Decoder(model="", instructions=False, benchmark=args.data)
    question = method.question(corpus.tasks)
    answers = (f" {question.answer_of(corpus.train, row)}" for row in range(len(corpus.train)))
    model = build_llama(
        folder / "small-llama",
        [*corpus.train.texts, *answers],
        width=args.width,
        layers=args.layers,
    )
    encoder = AnswerEncoder(
        location=str(model), revision=None, context=256, question=question, demonstrations=nothing
    )
    longest = encoder.longest_answer(corpus.train, corpus.valid)
    valid = corpus.valid.select(range(min(64, len(corpus.valid))))
    return DecoderWork(
        source=source_of(str(model), causal=True),
        train=encoder.rows(corpus.train, longest)[0],
        valid=encoder.rows(valid, longest)[0],
        config=FinetuneConfig(
            learning_rate=1e-3,
            max_steps=args.steps,
            batch=args.batch,
            micro_batch=args.batch // 4,
            precision="fp32",
            log_steps=1,
            evaluations=2,
            checkpoint_steps=max(1, args.steps // 2),
            patience=None,
            keep="last",
        ),
    )


def figures(done: Trained, seconds: float) -> dict[str, Any]:
    assert done.folder is not None
    told = json.loads((done.folder / "progress.json").read_text())
    rows = [row for row in told["history"] if "train/loss" in row]
    rates = sorted(row["tokens_per_second"] for row in rows if "tokens_per_second" in row)
    return {
        "why": done.why,
        "losses": [row["train/loss"] for row in rows],
        "valid_loss": told["latest"]["valid/loss"],
        "seconds": seconds,
        "median_tokens_per_second": rates[len(rates) // 2],
        "peak_memory_bytes": told["latest"]["peak_memory_bytes"],
        "joules": sum(told["usage"]["measured_joules"].values())
        + sum(told["usage"]["estimated_joules"].values()),
    }


def compared(found: dict[str, Any], done: Trained, first: dict[str, Any], base: Trained) -> None:
    """Add how far ``found`` lies from ``first``."""
    import numpy as np
    from safetensors.numpy import load_file

    assert done.folder is not None and base.folder is not None
    ours, theirs = np.array(found["losses"]), np.array(first["losses"])
    assert len(ours) == len(theirs), f"{len(ours)} losses instead of {len(theirs)}"
    found["largest_relative_difference"] = float(np.max(np.abs(ours - theirs) / theirs))
    mine, yours = (load_file(d.folder / "best" / "model.safetensors") for d in (done, base))
    found["largest_weight_difference"] = max(
        float(np.abs(mine[name] - value).max()) for name, value in yours.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="massive-en")
    parser.add_argument("--tasks", nargs="+", default=["intent", "slots"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=[*WAYS],
        metavar="WAY",
        help=f"some of {', '.join(WAYS)}",
    )
    args = parse(parser, steps=4, batch=4, width=32, layers=1, ways=["1 worker", KILLED])
    from llmembed.cluster import LocalRuntime, RayRuntime

    result = Figures(args.json)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work = prepared(args, folder)
        result.add(
            what="losses of one fine-tuning, shared out in several ways",
            settings={
                **work.config.to_json(),
                "data": args.data,
                "tasks": args.tasks,
                "parameters": work.source.parameters,
            },
        )
        start = time.perf_counter()
        base = LocalRuntime(folder / "here").train(work)
        first = figures(base, time.perf_counter() - start)
        print(f"this process: {first['losses'][0]:.4f} -> {first['losses'][-1]:.4f}", flush=True)
        ways = {"this process": first}
        result.add(ways=ways)
        with RayRuntime(folder / "files") as runtime:
            for name in args.ways:
                sharding = Sharding(
                    parameters=work.source.parameters, batch=args.batch, bf16=False, **WAYS[name]
                )
                mine: DecoderWork = work
                if name == KILLED:
                    fields = {key: getattr(work, key) for key in work.__dataclass_fields__}
                    mark = folder / "files" / "died"
                    mine = DiesOnce(**fields, mark=mark, name=f"way-{len(ways)}")
                start = time.perf_counter()
                done = runtime.train(mine, name=f"way-{len(ways)}", sharding=sharding)
                ways[name] = figures(done, time.perf_counter() - start)
                compared(ways[name], done, first, base)
                result.add(ways=ways)
                difference = ways[name]["largest_relative_difference"]
                seconds = ways[name]["seconds"]
                print(f"{name}: losses within {difference:.1e}, {seconds:.0f} s", flush=True)
    result.finish()


if __name__ == "__main__":
    main()
