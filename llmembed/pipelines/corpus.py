"""From an experiment's words to a corpus."""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError, DataError
from llmembed.experiment import Data, TrackingSettings
from llmembed.mistakes import suggest

if TYPE_CHECKING:
    from llmembed.texts import Corpus, CorpusSource


def make_corpus(data: Data, files: str) -> Corpus:
    """The labelled texts that ``data`` names, or the part that ``limit`` and ``tasks`` leave."""
    from llmembed.texts import load_corpus, with_feedback

    # Beside a remote store the rows set aside wait here until the run takes them as an artifact.
    place = Path(tempfile.mkdtemp(prefix="llmembed-")) if "://" in files else Path(files)
    corpus = load_corpus(
        make_source(data),
        seed=data.seed,
        valid_fraction=data.valid_fraction,
        quarantine_folder=place / "quarantine",
        max_bad_fraction=data.max_bad_fraction,
        drop_leaks=data.drop_leaks,
    )
    if data.tasks is not None:
        corpus = _only_tasks(corpus, data.tasks)
    if data.other_label is not None:
        corpus = _with_other(corpus, data.other_label)
    if data.feedback is not None:
        # Before the limit: a text that stands anywhere in test stays out of train.
        address = feedback_address(data.feedback, files)
        corpus = with_feedback(corpus, address, quarantine_folder=place / "quarantine")
    return corpus if data.limit is None else _limited(corpus, data.limit, data.seed)


def feedback_address(word: str, files: str) -> str:
    """Where corrected labels lie: the folder itself, or that of the served model of this name."""
    from llmembed.embeddings.folder import Folder

    if "://" in word or Path(word).exists():
        return word
    folder = Folder(files).child("feedback", word)
    if not re.fullmatch(r"[\w.+-]+", word) or not folder.names():
        raise DataError(
            f"data.feedback: there is no folder {word}, and no feedback on a model of that name "
            f"in {Folder(files).child('feedback').address}"
        )
    return folder.address


def make_source(data: Data) -> CorpusSource:
    """A benchmark's name, files (anything that exists, is a pattern or an address), or a hub id."""
    from llmembed.texts import BENCHMARKS, Columns, CorpusSource, Form

    words = [data.source] if isinstance(data.source, str) else data.source
    labels = data.labels or {"label": "label"}
    if len(words) == 1 and words[0] in BENCHMARKS:
        if data.labels or data.test:
            raise ConfigError(
                f"data.source: the benchmark {words[0]!r} has its own labels and test part"
            )
        return CorpusSource.benchmark(words[0], **data.options)
    columns = Columns(
        text=data.text_column,
        labels=labels,
        kinds={**(dict.fromkeys(labels, "multi") if data.multi else {}), **data.kinds},
        words=data.words_column,
        separator=data.separator,
        empty_is_none=data.empty_is_none,
    )
    fraction = 0.0 if data.test else data.test_fraction
    if len(words) == 1 and _may_be_hub_id(words[0]):
        return CorpusSource.hub(
            words[0],
            columns=columns,
            config=data.hub_config,
            revision=data.hub_revision,
            test_fraction=fraction,
        )
    missing = [
        w for w in words if "://" not in w and not set(w) & set("*?[") and not Path(w).exists()
    ]
    if missing:
        near = difflib.get_close_matches(missing[0], BENCHMARKS, n=1)
        hint = f"; did you mean the benchmark {near[0]!r}?" if near else ""
        raise DataError(
            f"{missing[0]}: no such file, and no benchmark either ({', '.join(BENCHMARKS)}){hint}"
        )
    return CorpusSource.files(
        words,
        columns=columns,
        valid=data.valid,
        test=data.test,
        test_fraction=fraction,
        form=Form(delimiter=data.delimiter, encoding=data.encoding),
        split_by_name=data.split_by_name,
    )


def _may_be_hub_id(word: str) -> bool:
    """``owner/name``, where no such file lies here."""
    return (
        re.fullmatch(r"[\w.-]+/[\w.-]+", word) is not None
        and not Path(word).exists()
        and not Path(word).parent.is_dir()
    )


def _only_tasks(corpus: Corpus, names: Sequence[str]) -> Corpus:
    tasks = {task.name: task for task in corpus.tasks}
    for name in names:
        if name not in tasks:
            raise ConfigError(
                f"data.tasks: {corpus.name} has no task {name!r}, it has {', '.join(tasks)}"
            )

    def cut(examples: Examples) -> Examples:
        words = examples.words if any(tasks[name].kind == "tokens" for name in names) else None
        labels = {name: examples.labels[name] for name in names}
        return replace(examples, labels=labels, words=words)

    named = f"{corpus.name}-{'-'.join(names)}"
    chosen = tuple(tasks[name] for name in names)
    return _changed(replace(corpus, name=named), chosen, cut, corpus.partial)


def _with_other(corpus: Corpus, label: str) -> Corpus:
    single = [task for task in corpus.tasks if task.kind == "single"]
    if not any(label in task.classes for task in single):
        known = [name for task in single for name in task.classes]
        raise ConfigError(
            f"data.other_label: no task of {corpus.name} with one class a text has a class "
            f"{label!r}{suggest(label, known)}"
        )
    return replace(corpus, other_label=label)


def _limited(corpus: Corpus, limit: int, seed: int) -> Corpus:
    """``limit`` rows of each part, drawn by ``seed``, in their order."""
    import numpy as np

    def cut(examples: Examples) -> Examples:
        if len(examples) <= limit:
            return examples
        rows = np.random.default_rng(seed).choice(len(examples), limit, replace=False)
        return examples.select(np.sort(rows))

    # A trial on few rows is another corpus: its winner must not stand in the whole one's way.
    named = replace(corpus, name=f"{corpus.name}-{limit}-rows")
    said = f"{limit} rows of each part, drawn by seed {seed}"
    if corpus.partial:
        said = f"{corpus.partial}; of these {said}"
    return _changed(named, corpus.tasks, cut, said)


def _changed(
    corpus: Corpus,
    tasks: tuple[Task, ...],
    cut: Callable[[Examples], Examples],
    partial: str | None,
) -> Corpus:
    splits = {name: cut(examples) for name, examples in corpus.splits.items()}
    return corpus.parted(splits, tasks=tasks, partial=partial)


def plain_name(name: str) -> str:
    """A name that MLflow and a file system take: of what they refuse each run becomes a ``-``."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-").lstrip(".") or "unnamed"


def changed_names(tracking: TrackingSettings) -> list[str]:
    """What is kept under another name than was asked for, in sentences."""
    asked = {"experiment": tracking.experiment, "register_as": tracking.register_as}
    return [
        f"tracking.{key} {word} is kept as {plain_name(word)}: names here take letters, digits and "
        "_ . + -"
        for key, word in asked.items()
        if word and plain_name(word) != word
    ]


def described(sources: str | Sequence[str]) -> str:
    """A data source in words, for run descriptions."""
    return sources if isinstance(sources, str) else " ".join(sources)
