"""The embedded default: docstrings of the running Python's own standard library, a real task that
needs no download. Which of the twenty largest modules does a docstring document (``module``), and
which field does that module belong to (``area``)?

Files are parsed with ``ast``, never imported. Taken are modules, classes and functions of public
modules; tests are left out, and so are docstrings under five words and exact repetitions (the
first by path stays). A text is left as it was written, the name of its module included where the
author wrote it; the notes say how often.
"""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from llmembed.texts.benchmarks.benchmark import Benchmark, Tables
from llmembed.texts.columns import Columns

MODULES = 20
WORDS = 5
TEST_FRACTION = 0.2
TEST_SEED = 20240605
TEST_FOLDERS = {"test", "tests", "idle_test"}

AREAS = {
    "concurrency": "asyncio concurrent multiprocessing queue sched selectors subprocess threading",
    "data formats": "configparser csv email html json mailbox mimetypes plistlib tomllib xml",
    "development": "bdb cProfile distutils doctest idlelib lib2to3 pdb profile pydoc timeit trace "
    "tracemalloc unittest venv zipapp ensurepip",
    "files": "bz2 fileinput filecmp glob gzip lzma os pathlib shutil shelve sqlite3 tarfile "
    "tempfile zipfile dbm",
    "graphics": "tkinter turtle turtledemo colorsys curses",
    "language": "abc ast codeop collections contextlib copy dataclasses dis enum functools "
    "importlib inspect io operator pickle pickletools symtable traceback types typing weakref",
    "networking": "ftplib http imaplib ipaddress nntplib poplib smtplib socket socketserver ssl "
    "telnetlib urllib wsgiref xmlrpc",
    "numbers and dates": "calendar datetime decimal fractions numbers random statistics zoneinfo",
    "system": "argparse cgi cmd getopt logging optparse platform signal warnings",
    "text": "codecs difflib encodings gettext locale re string textwrap",
}
"""Area -> modules, by hand; a module that stands in none of them is ``other``."""


def area_of(module: str) -> str:
    return next((area for area, modules in AREAS.items() if module in modules.split()), "other")


def public_files(root: Path) -> Iterator[tuple[str, Path]]:
    """(top-level module, file) of the standard library's public modules, tests excluded."""
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] not in sys.stdlib_module_names:
            continue
        if any(part.startswith("_") and part not in ("__init__", "__main__") for part in parts):
            continue
        if any(part in TEST_FOLDERS or part.startswith("test_") for part in parts):
            continue
        yield parts[0], file


def docstrings_of(source: bytes) -> Iterator[str]:
    """Cleaned docstrings in the order in which they stand. Nothing where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text
        # definitions stand in statements only: expressions need not be walked
        inner = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.stmt, ast.ExceptHandler))
        ]
        waiting.extend(reversed(inner))


@cache
def collect(root: Path) -> tuple[tuple[str, str], ...]:
    """(text, module) of the largest modules; read once in a process, as it takes seconds."""
    seen: set[str] = set()
    rows: list[tuple[str, str]] = []
    for module, file in public_files(root):
        for text in docstrings_of(file.read_bytes()):
            if len(text.split()) >= WORDS and text not in seen:
                seen.add(text)
                rows.append((text, module))
    sizes = Counter(module for _, module in rows)
    largest = sorted(sizes, key=lambda module: (-sizes[module], module))[:MODULES]
    return tuple(row for row in rows if row[1] in largest)


def naming_share(rows: Sequence[tuple[str, str]]) -> float:
    """Share of texts that name their own module as a word, whatever the case."""
    named = sum(
        re.search(rf"\b{re.escape(module)}\b", text, re.IGNORECASE) is not None
        for text, module in rows
    )
    return named / max(1, len(rows))


def make() -> tuple[Tables, dict[str, str]]:
    import numpy as np
    import pyarrow as pa

    from llmembed.texts.split import hold_out

    rows = collect(Path(sysconfig.get_path("stdlib")))
    table = pa.table(
        {
            "text": pa.array([text for text, _ in rows], pa.string()),
            "module": pa.array([module for _, module in rows], pa.string()),
            "area": pa.array([area_of(module) for _, module in rows], pa.string()),
        }
    )
    strata = table["module"].combine_chunks().dictionary_encode().indices.to_numpy()
    train, test = hold_out(
        np.arange(len(rows)), strata.astype(np.int64), fraction=TEST_FRACTION, seed=TEST_SEED
    )
    version = ".".join(str(part) for part in sys.version_info[:3])
    notes = {
        "source": f"docstrings of the standard library of Python {version}",
        "test": f"{TEST_FRACTION:.0%} of the rows, stratified by module, seed {TEST_SEED}",
        "text": f"{naming_share(rows):.1%} of the texts name their own module; left as written",
    }
    return {"train": table.take(train), "test": table.take(test)}, notes


BENCHMARK = Benchmark(
    name="default",
    title="Docstrings of Python's standard library, module and area (nothing to download)",
    columns=Columns(labels={"module": "module", "area": "area"}),
    make=make,
)
