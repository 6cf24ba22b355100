"""The terminal, and the same figures as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from llmembed.errors import ConfigError
from llmembed.texts.columns import printable

if TYPE_CHECKING:
    from rich.console import Console

    from llmembed.evaluation import Leaderboard
    from llmembed.experiment import Experiment
    from llmembed.texts import Corpus, FileReader
    from llmembed.tracking import Registered, Tracking

WIDTH = 110
NOTE_CHARACTERS = 600
WARNINGS = ("assumed", "no_", "unseen_", "alike_", "quoted_", "separator_", "leak_", "conflicts_")
"""Notes of these keys may change what the figures mean."""
WHAT = {
    "files": "files: ",
    "source": "source: ",
    "revision": "revision: ",
    "assumed": "assumed: ",
    "test": "test: ",
    "valid": "valid: ",
    "feedback": "feedback: ",
}
WORDS = {"single": "classes", "multi": "labels", "tokens": "tags"}


def console(*, stderr: bool = False) -> Console:
    """Where results are printed; figures are left as they are, without colouring."""
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True, stderr=stderr)
    # A pipe or a file has no width; the leaderboard needs this much.
    return out if out.is_terminal else Console(file=out.file, highlight=False, width=WIDTH)


def write_json(path: str | None, figures: Any) -> None:
    """Write ``figures`` to ``path`` when the user asked for it."""
    if path is not None:
        check_writable(path)
        text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
        Path(path).write_text(text, encoding="utf-8")


def check_writable(path: str | None) -> None:
    """Raise ``ConfigError`` now, not after hours of work, if ``--json PATH`` can't be written."""
    if path is None:
        return
    if "://" in path:
        raise ConfigError(f"--json {path}: a file of this machine is expected")
    if Path(path).is_dir():
        raise ConfigError(f"--json {path}: this is a folder; name a file")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--json {path}: {error.strerror}: {error.filename}") from None


def say_corpus(out: Console, corpus: Corpus) -> None:
    """What was read, and all that a reader of its figures must know."""
    sizes = ", ".join(f"{len(examples):,} {part}" for part, examples in corpus.splits.items())
    tasks = ", ".join(
        f"{task.name} ({len(task.classes)} {WORDS[task.kind]})" for task in corpus.tasks
    )
    out.print(f"[bold]{escape(corpus.name)}[/]: {sizes}; {escape(tasks)}")
    if corpus.partial:
        out.print(f"  partial data: {escape(corpus.partial)}", style="yellow")
    for key, note in corpus.notes.items():
        # Line ends of a file's own names must not look like lines of ours.
        words = escape(printable(f"{WHAT.get(key, '')}{note}", NOTE_CHARACTERS))
        if key != "source" or "files" not in corpus.notes:
            style = "yellow" if key.startswith(WARNINGS) else "dim"
            out.print(f"  {words}", style=style, soft_wrap=True)
    if corpus.feedback_quarantined:
        bad = corpus.feedback_quarantined
        out.print(f"  bad rows of the feedback are in {escape(str(bad.path))}", style="yellow")
    if corpus.quarantined:
        bad = corpus.quarantined
        why = ", ".join(f"{n} times {printable(reason)}" for reason, n in bad.reasons.items())
        words = f"{bad.count} bad rows set aside in {bad.path}: {why}"
        out.print(f"  {escape(words)}", style="yellow", soft_wrap=True)


def say_assumed(out: Console, made: Sequence[FileReader]) -> None:
    """What was taken for granted of the files that are labelled."""
    from llmembed.texts.gathering import assumptions

    found: dict[str, dict[str, None]] = {}
    for reader in made:
        if reader.assumed:
            found.setdefault(reader.assumed, {})[reader.file.address] = None
    if found:
        words = escape(printable(assumptions(found), NOTE_CHARACTERS))
        out.print(f"assumed: {words}", style="yellow", soft_wrap=True)


def say_leaderboard(
    out: Console,
    board: Leaderboard,
    registered: Registered | None,
    stored: str,
    tracking: Tracking,
    saved: str | None,
    experiment: Experiment,
) -> None:
    """The table, what became of the winner, and what to type next."""
    out.print()
    out.print(board, soft_wrap=False)
    out.print()
    if registered is None:
        out.print("no winner: every fit failed, is incomplete or was skipped", style="red")
    else:
        out.print(
            f"winner: [bold]{escape(str(registered.method))}[/], registered as {registered.name} "
            f"version {registered.version}, {registered.alias} ({escape(registered.reason)})"
        )
        where: list[str] = []
        if experiment.runtime.files != "llmembed-files":
            where.append(f"--files {shlex.quote(experiment.runtime.files)}")
        if experiment.tracking.uri:
            where.append("--tracking-uri ADDRESS")
        named = f"{registered.name}@{registered.alias}"
        words = ["llmembed predict --model", named]
        if experiment.data.text_column != "text":
            words.append(f"--text-column {shlex.quote(experiment.data.text_column)}")
        if experiment.data.encoding:
            words.append(f"--encoding {experiment.data.encoding}")
        words += [*where, "--data FILE.csv --output labels.csv"]
        out.print(f"  label your texts:  {escape(' '.join(words))}", soft_wrap=True)
        served = registered.name if registered.alias == "champion" else named
        out.print(f"  put it online:     {escape(' '.join(['llmembed serve', served, *where]))}")
        if registered.alias != "champion":
            out.print("  make it champion:  the same command with tracking.promote=true")
    if saved:
        out.print(f"  saved in:          {escape(saved)}")
    out.print(f"  see every run:     {escape(tracking.ui_command)}", soft_wrap=True)
    out.print(f"                     then open {escape(tracking.page)}")
    out.print(f"  this table again:  llmembed report {escape(stored)}", soft_wrap=True)
