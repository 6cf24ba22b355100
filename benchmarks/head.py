"""How fast heads train, and how well: ``python benchmarks/head.py --json FILE``.

First, the fifteen fusions of table 1 at equal optimiser steps, batch, learning rate and head
shape, early stopping off: llmembed, all fifteen as a sweep trains them (fits of equal shape side
by side) and one by one, against a plain PyTorch loop over a DataLoader (a TensorDataset of the
raw views, shuffled, fusion inside the loop, fp32, AdamW as it comes). They alternate, repeated; a
time is the median, everything from arrays to trained weights, and a speed-up is the ratio of the
sums. The head is that of llmembed's recipe (one hidden layer of 128, dropout 0.5), the batch of
1024 rows is the LLMEmbed authors', the learning rate of 1e-3 is the recipe's and AdamW's own
default. Then the same once with the authors' head (1024, 256), where the time goes into matrix
products that all must do.

Then, apart, llmembed's recipe against the authors' settings (Adam at 1e-4, 100 epochs, inputs as
they are, but logits and not softmaxed values into the cross-entropy).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from head_loops import TABLE_1, Data, alone, embedded, plain_loop, side_by_side
from running import Figures, add_corpus, parse, use_data

from llmembed.fusion import FUSIONS
from llmembed.heads import HeadConfig


def equal_steps(data: Data, config: HeadConfig, repeats: int) -> dict[str, Any]:
    """Every way over every fusion, taking turns."""
    ways = {"alone": alone, "loop": plain_loop}
    for run in ways.values():  # first calls load kernels and libraries
        run(data, "last", HeadConfig.from_json({**config.to_json(), "epochs": 1}))
    seen: dict[str, dict[str, list[tuple[float, float | None]]]] = {
        fusion: {name: [] for name in ways} for fusion in TABLE_1
    }
    together: list[tuple[float, dict[str, float | None]]] = []
    for repeat in range(repeats):
        seeded = HeadConfig.from_json({**config.to_json(), "seed": repeat})
        for fusion in TABLE_1:
            for name, run in ways.items():
                seen[fusion][name].append(run(data, fusion, seeded))
        together.append(side_by_side(data, seeded))
    rows = []
    for fusion, by_way in seen.items():
        row: dict[str, Any] = {"fusion": fusion, "number": FUSIONS[fusion].number}
        for name, results in by_way.items():
            row[f"seconds_{name}"] = statistics.median(seconds for seconds, _ in results)
            row[f"accuracy_{name}"] = mean_of(accuracy for _, accuracy in results)
        row["accuracy_ours"] = mean_of(found[fusion] for _, found in together)
        row["speedup_alone"] = row["seconds_loop"] / row["seconds_alone"]
        rows.append(row)
        print(
            f"{fusion:12} "
            + "   ".join(
                f"{name} {row[f'seconds_{name}']:7.2f} s {shown(row[f'accuracy_{name}'])}"
                for name in ways
            )
            + f"   {row['speedup_alone']:5.2f} x",
            flush=True,
        )
    ours = statistics.median(seconds for seconds, _ in together)
    loop, one_by_one = (sum(row[f"seconds_{name}"] for row in rows) for name in ("loop", "alone"))
    return {
        "speedup_vs_dataloader_loop": loop / ours,
        "speedup_one_by_one": loop / one_by_one,
        "seconds_ours": ours,
        "seconds_one_by_one": one_by_one,
        "seconds_loop": loop,
        "accuracy_ours": mean_of(row["accuracy_ours"] for row in rows),
        "accuracy_one_by_one": mean_of(row["accuracy_alone"] for row in rows),
        "accuracy_loop": mean_of(row["accuracy_loop"] for row in rows),
        "fusions": rows,
    }


def recipes(data: Data, seeds: int, epochs: int | None) -> dict[str, Any]:
    """llmembed's defaults and the authors' settings, both through llmembed's loop."""
    makers: dict[str, Callable[..., HeadConfig]] = {"ours": HeadConfig, "authors": HeadConfig.paper}
    fewer = {} if epochs is None else {"epochs": epochs}
    rows = []
    for fusion in TABLE_1:
        row: dict[str, Any] = {"fusion": fusion, "number": FUSIONS[fusion].number}
        for name, make in makers.items():
            results = [alone(data, fusion, make(seed=seed, **fewer)) for seed in range(seeds)]
            row[f"seconds_{name}"] = statistics.mean(seconds for seconds, _ in results)
            row[f"accuracy_{name}"] = mean_of(accuracy for _, accuracy in results)
            row[f"collapsed_{name}"] = sum(accuracy is None for _, accuracy in results)
        rows.append(row)
        print(
            f"{fusion:12} "
            + "   ".join(
                f"{name} {row[f'seconds_{name}']:7.2f} s {shown(row[f'accuracy_{name}'])}"
                for name in makers
            ),
            flush=True,
        )
    whole: dict[str, Any] = {"seeds": seeds}
    for name in makers:
        whole[f"seconds_{name}"] = sum(row[f"seconds_{name}"] for row in rows)
        whole[f"accuracy_{name}"] = mean_of(row[f"accuracy_{name}"] for row in rows)
    return {**whole, "fusions": rows}


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values there are."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def shown(accuracy: float | None) -> str:
    return "collapsed" if accuracy is None else f"{accuracy:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_corpus(parser)
    parser.add_argument("--epochs", type=int, default=40, help="epochs of the equal-step part")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--widths", type=int, nargs="+", default=list(HeadConfig().widths))
    parser.add_argument(
        "--authors-epochs", type=int, default=10, help="the same with the authors' head; 0: not"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="0 leaves the recipes out")
    parser.add_argument("--recipe-epochs", type=int, help="default: the recipes' own")
    args = parse(
        parser, epochs=1, batch=32, widths=[8], authors_epochs=1, repeats=1, recipe_epochs=1
    )
    use_data(args.data)
    import torch

    figures = Figures(args.json)
    with tempfile.TemporaryDirectory() as scratch:
        data = embedded(args.corpus, args.limit, args.model, args.store or Path(scratch))
        equal = HeadConfig(
            widths=tuple(args.widths),
            batch=args.batch,
            least_steps=1,
            epochs=args.epochs,
            schedule="constant",
            label_smoothing=0.0,
            patience=None,
            calibrate=False,
        )
        print(f"equal steps: {equal.widths}, batch {equal.batch}, {equal.epochs} epochs")
        figures.add(
            corpus=args.corpus,
            rows={name: len(getattr(data, name).labels) for name in ("train", "valid", "test")},
            settings=equal.to_json(),
            repeats=args.repeats,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
        )
        figures.add(**equal_steps(data, equal, args.repeats))
        if args.authors_epochs:
            wide = HeadConfig.from_json(
                {**equal.to_json(), "widths": [1024, 256], "epochs": args.authors_epochs}
            )
            print(f"equal steps: {wide.widths}, batch {wide.batch}, {wide.epochs} epochs")
            figures.add(authors_head={**equal_steps(data, wide, 1), "settings": wide.to_json()})
        if args.seeds:
            print("recipes: ours, and the authors' 100 epochs")
            figures.add(recipes=recipes(data, args.seeds, args.recipe_epochs))
    print(
        f"the fifteen: loop {figures['seconds_loop']:.1f} s, ours {figures['seconds_ours']:.1f} s, "
        f"{figures['speedup_vs_dataloader_loop']:.2f} x (one by one "
        f"{figures['seconds_one_by_one']:.1f} s, {figures['speedup_one_by_one']:.2f} x); accuracy "
        f"{shown(figures['accuracy_loop'])} and {shown(figures['accuracy_ours'])}"
    )
    figures.finish()


if __name__ == "__main__":
    main()
