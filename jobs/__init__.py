"""What ``ray job submit`` runs: each job is one command of llmembed on the job's own cluster.

::

    ray job submit --working-dir . -- python -m jobs.compare --data r8 --files s3://bucket/llmembed

or, with the size of the working directory checked first and the job's exit code handed back,
``python -m jobs.submit compare --data r8 …``.

A job's working directory is a copy that goes with the job, so nothing is written there. Files go
to ``--files``, to ``LLMEMBED_FILES``, or to ``llmembed-files`` in the home folder of the head node;
what ``--output``, ``--save`` and ``--json`` name by a relative path goes there too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

WRITTEN = ("--output", "--save", "--json")


def run(command: str, arguments: Sequence[str]) -> int:
    """Run ``llmembed command`` as a job; returns its exit code."""
    from llmembed.cli import main

    files = os.environ.setdefault("LLMEMBED_FILES", str(Path.home() / "llmembed-files"))
    return main([command, *kept(arguments, files)])


def kept(arguments: Sequence[str], files: str) -> list[str]:
    """``arguments`` with a relative ``--files`` put below ``files``, and the relative paths of
    what is written put below the result."""
    pairs = _paired(arguments)
    chosen = [value for option, value in pairs if option == "--files" and value]
    root = _below(files, chosen[-1]) if chosen else files
    # An object store takes labels and stores; a saved classifier and a small table lie on a disk.
    disk = root if "://" not in root else str(Path.home() / "llmembed-files")
    words: list[str] = []
    for option, value in pairs:
        if value is None:
            words.append(option)
        elif option == "--files":
            words += [option, root]
        else:
            words += [option, _below(root if option == "--output" else disk, value)]
    return words


def _paired(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """(option, path) where an option takes a path to write to, (word, None) elsewhere."""
    pairs: list[tuple[str, str | None]] = []
    words = iter(arguments)
    for word in words:
        option, equals, path = word.partition("=")
        if option not in ("--files", *WRITTEN):
            pairs.append((word, None))
        else:
            pairs.append((option, path if equals else next(words, None)))
    return pairs


def _below(files: str, path: str) -> str:
    absolute = path.startswith(("/", "~")) or "://" in path
    return path if absolute else f"{files.rstrip('/')}/{path}"
