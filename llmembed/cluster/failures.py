"""A worker's error as one sentence of our tree, whatever the cluster wrapped it in."""

from __future__ import annotations

from collections.abc import Iterator

from llmembed.errors import LlmembedError, WorkerError


def as_ours(error: BaseException, label: str) -> LlmembedError:
    """The error to raise here for ``error``, which stopped the work called ``label``.

    An error of our own tree, raised in a worker, comes back as itself; any other becomes a
    ``WorkerError`` that quotes the innermost error's own words.
    """
    innermost = error
    for link in _chain(error):
        if isinstance(link, LlmembedError):
            return _plain(link)
        innermost = link
    words = str(innermost).strip().splitlines()
    # A remote traceback ends with the line that matters.
    said = words[-1].strip() if words else "no message"
    name = type(innermost).__name__
    return WorkerError(f"{label}: a worker failed for good: {name}: {said}")


def _plain(error: LlmembedError) -> LlmembedError:
    """The error without what Ray adds: its class is a mix of ours and Ray's, its text a
    traceback."""
    for kind in type(error).__mro__:
        if kind.__module__.startswith("llmembed"):
            words = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
            lines = words.strip().splitlines() or ["no message"]
            said = lines[-1] if "Traceback" in words or "ray::" in words else words
            return kind(said.removeprefix(f"{kind.__module__}.{kind.__qualname__}: "))  # type: ignore[no-any-return]
    raise AssertionError("an LlmembedError has a class of ours")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it was raised from, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        # Ray keeps the worker's exception as ``cause``, Python as ``__cause__``.
        cause = getattr(link, "cause", None)
        link = cause if isinstance(cause, BaseException) else link.__cause__ or link.__context__
