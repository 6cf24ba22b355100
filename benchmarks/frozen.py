"""Frozen embeddings against whole fine-tuning: ``python benchmarks/frozen.py --out DIR``.

On each data set every frozen method by the protocol of ``llmembed compare`` (validation chooses,
what is cheap is fitted on train and validation together, test is read once a fit) and
``encoder``, the same model fine-tuned whole, on the same rows. ``--limit`` cuts the training
parts alike for all rows, stratified and seeded. What is found is kept in ``DIR/NAME-LIMIT.json``
after each method, with the answers to test beside it, and a run that was ended goes on there.
Differences to ``encoder`` are paired: over the same test texts, drawn with replacement, of the
means over seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.running import Figures, parse, use_data  # noqa: E402
from llmembed.contract import Classifier, Method, Silent, Task  # noqa: E402
from llmembed.evaluation import Result, evaluate, evaluate_folded  # noqa: E402
from llmembed.experiment import load_experiment  # noqa: E402
from llmembed.folds import CrossFits  # noqa: E402
from llmembed.methods.settings import LeftOut  # noqa: E402
from llmembed.pipelines.corpus import make_corpus  # noqa: E402
from llmembed.pipelines.folding import make_folds  # noqa: E402
from llmembed.pipelines.judging import judged  # noqa: E402
from llmembed.pipelines.methods import Assembler  # noqa: E402
from llmembed.pipelines.runtime import make_runtime  # noqa: E402

TASKS = {"massive-en": ["intent"], "20ng": ["topic"]}
"""The one task of data sets that have several."""
DRAWS = 2000


class Found:
    """One data set's figures and answers on disk, as they come."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.arrays = folder / f"{name}.json", folder / f"{name}-answers"
        self.settings = settings
        self.figures: dict[str, Any] = {}
        if self.file.is_file():
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["settings"] != settings:
                raise SystemExit(f"{self.file} was made with other settings: {kept['settings']}")
            self.figures = kept["methods"]

    def has(self, method: str, seeds: Sequence[int]) -> bool:
        return all(str(seed) in self.figures.get(method, {}) for seed in seeds)

    def add(self, method: str, result: Result, answers: np.ndarray) -> None:
        self.arrays.mkdir(exist_ok=True)
        np.save(self.arrays / f"{method}-{result.seed}.npy", answers)
        told = result.to_json()
        for part in ("valid", "test"):
            for scores in told[part].values():
                scores["confusion"] = scores["reliability"] = None
        told["selective"] = {}
        self.figures.setdefault(method, {})[str(result.seed)] = told
        whole = {"settings": self.settings, "methods": self.figures}
        self.file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")

    def answers(self, method: str) -> list[np.ndarray]:
        return [np.load(self.arrays / f"{method}-{s}.npy") for s in self.figures[method]]


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """All methods on one data set; a row of figures for each."""
    experiment = load_experiment(
        "best",
        changes={
            "data.source": name,
            "data.tasks": TASKS.get(name),
            "backbones.encoder.model": args.model,
            "backbones.encoder.max_tokens": args.max_tokens,
            "methods.encoder.model": args.model,
            "runtime.files": str(args.files),
            "seeds": args.seeds,
        },
        overrides=args.set,
        only=args.methods,
    )
    settings = {"seeds": args.seeds, "max_tokens": args.max_tokens, "set": args.set}
    found = Found(args.out, f"{name}-{args.limit or 'all'}", settings)
    with make_runtime(**experiment.runtime.model_dump()) as runtime:
        corpus = cut(make_corpus(experiment.data, runtime.files), args.limit)
        corpus = judged(corpus, experiment.metric, experiment.costs)
        assert corpus.test is not None, "these benchmarks have a test part"
        folds = make_folds(corpus, experiment.selection, experiment.data.seed)
        assembler = Assembler(experiment)
        for method_name in assembler.order():
            method = assembler.method(method_name)
            frozen = isinstance(method, CrossFits)
            count = 1 if getattr(method, "deterministic", False) else experiment.seeds
            # Ensembles want the fits themselves, so frozen methods, which take minutes, are all
            # fitted again where one of them is missing.
            if found.has(method_name, range(count)) and (not frozen or args.resume):
                continue
            if frozen:
                assert folds is not None
                results, fitted = evaluate_folded(
                    method, corpus, folds, runtime, seeds=range(count)
                )
                if fitted is None:
                    raise SystemExit(f"{name}, {method_name}: {results[0].reason}")
                for seed, classifier in enumerate(fitted.classifiers):
                    assembler.keep(method_name, seed, classifier)
                rows = folds.rows if fitted.rows is None else fitted.rows
                left_out = LeftOut(rows=rows, answers=fitted.left_out, shared=fitted.shared)
                assembler.keep_left_out(method_name, left_out)
                pairs = list(zip(results, fitted.classifiers, strict=True))
            else:
                pairs = whole(method, corpus, runtime, found, method_name, count)
            for result, classifier in pairs:
                answers = classifier.predict(corpus.test.texts, runtime)
                found.add(method_name, result, answers[corpus.tasks[0].name].labels)
                print(f"{name} {method_name} seed {result.seed}: {told(result)}", flush=True)
    return summary(found, corpus.tasks[0], corpus.test.labels[corpus.tasks[0].name], corpus)


def whole(
    method: Method, corpus: Any, runtime: Any, found: Found, name: str, count: int
) -> list[tuple[Result, Classifier]]:
    """The seeds that are missing of a method that is trained whole."""
    pairs: list[tuple[Result, Classifier]] = []
    for seed in range(count):
        if found.has(name, [seed]):
            continue
        fitted: list[Classifier] = []
        [result] = evaluate(
            method,
            corpus,
            runtime,
            seeds=[seed],
            reporter_factory=lambda *_: Silent(),
            on_fitted=lambda _, classifier, kept=fitted: kept.append(classifier),
        )
        if not fitted:
            raise SystemExit(f"{corpus.name}, {name}: {result.reason}")
        pairs.append((result, fitted[0]))
    return pairs


def cut(corpus: Any, limit: int | None) -> Any:
    """Train and validation of ``limit`` rows together, each class's share kept, by seed 0."""
    if limit is None or len(corpus.train) + len(corpus.valid) <= limit:
        return corpus
    share = limit / (len(corpus.train) + len(corpus.valid))
    parts = dict(corpus.splits)
    for part in ("train", "valid"):
        examples = parts[part]
        labels = examples.labels[corpus.tasks[0].name]
        strata = labels if labels.ndim == 1 else labels.argmax(1)
        order = np.random.default_rng(0).permutation(len(examples))
        order = order[np.argsort(strata[order], kind="stable")]
        rows = np.flatnonzero(np.diff(np.floor(np.arange(len(order) + 1) * share)))
        parts[part] = examples.select(np.sort(order[rows]))
    said = f"{limit:,} rows of train and validation, stratified, seed 0"
    return corpus.parted(parts, tasks=corpus.tasks, partial=said)


def summary(found: Found, task: Task, truth: np.ndarray, corpus: Any) -> dict[str, Any]:
    """By method the mean over seeds, what it took, and the paired difference to ``encoder``."""
    rows: dict[str, Any] = {}
    rival = found.answers("encoder") if "encoder" in found.figures else None
    for method, seeds in found.figures.items():
        results = [Result.from_json(each) for each in seeds.values()]
        test = [result.test[task.name].value for result in results]
        rows[method] = {
            "seeds": len(results),
            "metric": results[0].test[task.name].primary,
            "valid": float(np.mean([result.valid_value() or 0.0 for result in results])),
            "test": float(np.mean(test)),
            "sd": float(np.std(test, ddof=1)) if len(test) > 1 else None,
            "core_seconds": float(np.mean([r.fit_usage.core_seconds for r in results])),
            "joules_estimated": float(np.mean([r.fit_usage.energy_joules for r in results])),
            "p50_ms": 1000 * results[0].latency.p50_seconds if results[0].latency else None,
            "p99_ms": 1000 * results[0].latency.p99_seconds if results[0].latency else None,
            "chosen": results[0].chosen,
        }
        if rival is not None and method != "encoder":
            rows[method]["against_encoder"] = paired(task, truth, found.answers(method), rival)
    return {
        "partial": corpus.partial,
        "rows": {"train": len(corpus.train), "valid": len(corpus.valid), "test": len(truth)},
        "methods": rows,
    }


def paired(
    task: Task, truth: np.ndarray, ours: list[np.ndarray], theirs: list[np.ndarray]
) -> dict[str, float]:
    """The difference of the means over seeds, with a 95 % interval over test texts drawn anew."""
    rng = np.random.default_rng(0)

    def value(answers: np.ndarray, rows: np.ndarray) -> float:
        if task.kind != "multi":
            return float((answers[rows] == truth[rows]).mean())
        said, true = answers[rows].astype(bool), truth[rows].astype(bool)
        right, both = (said & true).sum(0), said.sum(0) + true.sum(0)
        return float((2 * right[both > 0] / both[both > 0]).mean())

    def difference(rows: np.ndarray) -> float:
        return float(
            np.mean([value(each, rows) for each in ours])
            - np.mean([value(each, rows) for each in theirs])
        )

    count = len(truth)
    drawn = [difference(rng.integers(count, size=count)) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"difference": difference(np.arange(count)), "low": float(low), "high": float(high)}


def told(result: Result) -> str:
    test = ", ".join(f"{scores.primary} {scores.value:.4f}" for scores in result.test.values())
    seconds = result.fit_usage.core_seconds
    return f"validation {result.valid_value() or 0:.4f}, test {test}, {seconds:.0f} core-seconds"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", metavar="DIR", help="local copies of the benchmarks")
    parser.add_argument("--files", default="llmembed-files", help="the store")
    parser.add_argument(
        "--corpora", nargs="+", default=["r8", "r52", "20ng", "massive-en", "sst2", "goemotions"]
    )
    parser.add_argument("--limit", type=int, help="rows of train and validation, no more")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["frozen", "encoder"],
        help="of the recipe `best`; frozen: all over frozen embeddings, and their ensemble",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="to change")
    parser.add_argument("--resume", action="store_true", help="frozen methods that are there stay")
    parser.add_argument("--model", default="minilm", help="with at least five blocks and a pooler")
    args = parse(
        parser,
        corpora=["r8"],
        seeds=2,
        max_tokens=32,
        methods=["lexical", "kernel", "concat_b_r", "encoder", "frozen"],
        set=["runtime.local=true", "methods.encoder.training={epochs: 1}"],
    )
    use_data(args.data)
    figures = Figures(args.json)
    found: dict[str, Any] = {}
    for corpus in args.corpora:
        found[corpus] = run(corpus, args)
        figures.add(data=found)
    figures.finish()


if __name__ == "__main__":
    main()
