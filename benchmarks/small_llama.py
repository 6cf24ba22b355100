"""Build a small untrained Llama for a data set: ``python benchmarks/small_llama.py FOLDER``.

Its tokenizer is trained on the training texts and their gold answers. Fine-tuned, it is a check of
the machinery: leaderboards say so and never let it win.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from running import Figures, parse


def spoken(source: str, tasks: list[str] | None, limit: int | None) -> Iterator[str]:
    """Training texts, and their answers to all tasks together and to each alone."""
    from llmembed.experiment import Data
    from llmembed.pipelines.corpus import make_corpus
    from llmembed.prompts.question import make_question, variant_of

    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Data(source=source, tasks=tasks, limit=limit), folder)
    groups = [corpus.tasks, *([task] for task in corpus.tasks)]
    questions = [make_question(group, variant_of(group), benchmark=source) for group in groups]
    yield from corpus.train.texts
    for row in range(len(corpus.train)):
        for question in questions:
            yield f" {question.answer_of(corpus.train, row)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="massive-en")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    args = parse(parser, limit=20, vocabulary=300, width=32, layers=1)
    from llmembed.finetuning.untrained import build_llama

    figures = Figures(args.json)
    texts = list(spoken(args.data, args.tasks, args.limit))
    build_llama(
        args.folder,
        texts,
        vocabulary=args.vocabulary,
        width=args.width,
        layers=args.layers,
    )
    figures.add(
        data=args.data,
        texts=len(texts),
        width=args.width,
        layers=args.layers,
        weights_bytes=(args.folder / "model.safetensors").stat().st_size,
    )
    figures.finish()
    print(f"saved in {args.folder}")


if __name__ == "__main__":
    main()
