"""Searches over fusions and heads, or over how a model is fine-tuned, on Ray Tune.

::

    sweep = load_sweep("paper-grid", changes={"data.source": "r8"})
    found = start(sweep)                     # or resume("r8-20260101-120000", files=...)
    found.winner, found.front, found.test

    search      a sweep from beginning to end
    settings    what a space's YAML may say
    space       dimensions, and the walks through them; ``tpe``: Optuna's
    heads/      fusions and heads: embeddings extracted once, mapped by every trial
    models/     models trained whole: each trial starts a training on Ray Train
    trials      what both have of Ray Tune
    ledger      what is finished, on disk; ``board``: ranked
    winner      the winner fitted anew, test read once
    recording, pictures, summary    a sweep in MLflow, as pictures, on the terminal

Validation chooses, test is read once, by the winner. Ray Tune is imported here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune.search import resume, start
    from tune.settings import Sweep, load_sweep, ready_spaces
    from tune.summary import Found

_PUBLIC = {
    "Found": "summary",
    "resume": "search",
    "start": "search",
    "Sweep": "settings",
    "load_sweep": "settings",
    "ready_spaces": "settings",
}
__all__ = ["Found", "Sweep", "load_sweep", "ready_spaces", "resume", "start"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(f"tune.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
