"""A worker's error as one sentence of our tree.

A worker sends what stopped it as a table, like any result: Ray would wrap the error, print its
traceback and start the worker again. Errors of Ray itself (a worker that was killed too often)
come as exceptions and are put into words here too.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmembed import errors
from llmembed.errors import LlmembedError, WorkerError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_COLUMN = "llmembed.cluster error"


def error_table(error: Exception) -> pa.Table:
    """What a worker returns instead of its result."""
    import pyarrow as pa

    kind = next((c for c in type(error).__mro__ if c.__module__ == errors.__name__), None)
    report = {
        "ours": kind and kind.__name__,
        "name": type(error).__name__,
        "said": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    return pa.table({_COLUMN: [json.dumps(report)]})


def error_in(table: pa.Table) -> pa.Table | None:
    """The ``error_table`` that ``table`` is or holds: Ray Data joins what one task yields, so an
    error may stand as a last row below good ones, which are null in its column."""
    if _COLUMN not in table.column_names:
        return None
    said = table.select([_COLUMN]).drop_null()
    return said.slice(0, 1) if said.num_rows else None


def raise_error(error: pa.Table, label: str) -> None:
    """Raise, for the work called ``label``, what a worker returned by ``error_table``."""
    report: dict[str, Any] = json.loads(error.column(_COLUMN)[0].as_py())
    logger.debug("%s: a worker's traceback:\n%s", label, report["traceback"])
    if report["ours"]:
        raise getattr(errors, report["ours"])(report["said"])
    raise _worker_error(label, report["name"], report["said"])


def as_ours(error: BaseException, label: str) -> LlmembedError:
    """The error to raise for ``error``, which stopped the work called ``label``: the one of our
    tree that it was raised from, else a ``WorkerError`` that quotes its innermost cause."""
    if isinstance(error, LlmembedError):
        return error
    said = error
    for link in _chain(error):
        if type(link).__module__ == errors.__name__:
            assert isinstance(link, LlmembedError)
            return link
        if str(link).strip():
            said = link
    return _worker_error(label, type(said).__name__, str(said))


def _worker_error(label: str, name: str, said: str) -> WorkerError:
    # A remote traceback ends with the line that matters.
    lines = said.strip().splitlines() or ["no message"]
    return WorkerError(f"{label}: a worker failed for good: {name}: {lines[-1].strip()}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it was raised from, outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        # Ray Data keeps the worker's exception as ``cause``, Ray Train one for each rank.
        failures = getattr(link, "worker_failures", None)
        ranks = list(failures.values()) if isinstance(failures, dict) else []
        causes = [*ranks, getattr(link, "cause", None), link.__cause__, link.__context__]
        waiting += [cause for cause in causes if isinstance(cause, BaseException)]
