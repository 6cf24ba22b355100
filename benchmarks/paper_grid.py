"""The paper's grid on several data sets: ``python benchmarks/paper_grid.py --out DIR``.

Runs the ready space ``paper-grid`` (28 configurations, 3 seeds) on each benchmark with one small
encoder, goes on where an earlier run stopped, and writes ``paper-grid-NAME.json`` for each and one
``paper-grid.md``: validation accuracy of every configuration with its spread, and the winner's
test figures. Test is read by the winner alone, so the table ranks on validation.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

# `tune.py` in this folder is called like the package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.running import Figures, command, parse, use_data  # noqa: E402
from llmembed.embeddings.folder import Folder  # noqa: E402
from llmembed.pipelines.runtime import files_folder  # noqa: E402
from tune import load_sweep, resume, start  # noqa: E402


def key_of(row: dict[str, Any]) -> tuple[str, float | None]:
    return row["settings"]["fusion"], row["settings"]["sigma"]


def markdown(found: dict[str, dict[str, Any]], made_by: str) -> str:
    """One row a configuration, one column a data set; best first by the mean over data sets."""
    names = list(found)
    rows: dict[tuple[str, float | None], dict[str, dict[str, Any]]] = {}
    for name, figures in found.items():
        for row in figures["configurations"]:
            rows.setdefault(key_of(row), {})[name] = row

    def mean(of: dict[str, dict[str, Any]]) -> float:
        return sum(row["valid_accuracy"] for row in of.values()) / len(of)

    first = next(iter(found.values()))
    views = ", ".join(f"{name} = {words}" for name, words in first["views"].items())
    lines = [
        "# The paper's grid with one small encoder",
        "",
        f"Made by `{made_by}`.",
        "",
        f"Backbone {', '.join(first['backbones'].values())}; views {views}. Validation "
        "accuracy, mean ± standard deviation over seeds (20ng: mean of its two tasks). "
        "The last line is the standard error that the size of the validation part alone brings.",
        "",
        "| fusion | σ | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for (fusion, sigma), of in sorted(rows.items(), key=lambda item: -mean(item[1])):
        cells = []
        for name in names:
            row = of.get(name)
            spread = "" if row is None or row["sd"] is None else f" ± {row['sd']:.4f}"
            cells.append("failed" if row is None else f"{row['valid_accuracy']:.4f}{spread}")
        lines.append(f"| {fusion} | {'' if sigma is None else sigma} | " + " | ".join(cells) + " |")
    errors = []
    for figures in found.values():
        best, count = figures["winner"]["valid_accuracy"], figures["rows"]["valid"]
        errors.append(f"{math.sqrt(best * (1 - best) / count):.4f}")
    lines.append("| one standard error | | " + " | ".join(errors) + " |")
    lines += ["", "| data | winner | validation | test |", "|---|---|---|---|"]
    for name, figures in found.items():
        best = figures["winner"]
        scores = ", ".join(
            f"{task} {each['mean']:.4f}" + ("" if each["sd"] is None else f" ± {each['sd']:.4f}")
            for task, each in figures["test"]["tasks"].items()
        )
        fusion, sigma = key_of(best)
        said = fusion if sigma is None else f"{fusion}, σ {sigma}"
        lines.append(f"| {name} | {said} | {best['valid_accuracy']:.4f} | {scores} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", metavar="DIR", help="local copies of the benchmarks")
    parser.add_argument("--files", default="llmembed-files", help="store, sweeps and MLflow")
    parser.add_argument("--corpora", nargs="+", default=["r8", "r52", "20ng"])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="to change")
    parser.add_argument("--model", default="minilm", help="with at least five blocks and a pooler")
    args = parse(
        parser,
        corpora=["r8"],
        set=["head.epochs=2", "head.widths=[8]", "search={seeds: 1, finalists: 1, final_seeds: 2}"],
    )
    use_data(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    figures = Figures(args.json)
    found: dict[str, dict[str, Any]] = {}
    for corpus in args.corpora:
        target = args.out / f"paper-grid-{corpus}.json"
        name = f"paper-grid-{corpus}"
        changes = {
            "data.source": corpus,
            "runtime.files": args.files,
            "backbones.encoder.model": args.model,
        }
        sweep = load_sweep("paper-grid", changes=changes, overrides=args.set)
        if target.is_file():
            print(f"{target} is there already: kept")
        elif "sweep.json" in Folder(files_folder(args.files)).child("sweeps", name).names():
            resume(name, files=args.files, json_path=str(target))
        else:
            start(sweep, name=name, json_path=str(target))
        found[corpus] = json.loads(target.read_text(encoding="utf-8"))
        figures.add(data=found)
        (args.out / "paper-grid.md").write_text(markdown(found, command()), encoding="utf-8")
    figures.finish()


if __name__ == "__main__":
    main()
