"""How answers are judged and decided, by a name for each way: the base of every choice.

A task's ``metric`` is what early stopping, the choice of settings, sweeps, the leaderboard and the
registry's champion go by. All are used so that higher is better: of what is a loss (``LOSSES``) the
value is its negative, while it is shown among the figures as it is.

``names`` knows them without numpy, ``measuring`` computes them, ``deciding`` makes labels of
scores.
"""

from __future__ import annotations

from llmembed.metrics.names import (
    LOSSES,
    PRIMARY,
    check_metric,
    is_known,
    judged_by,
    known,
    metric_of,
    needs_scores,
    precision_of,
    shown_name,
    sign_of,
    value_of,
)

__all__ = [
    "LOSSES",
    "PRIMARY",
    "check_metric",
    "is_known",
    "judged_by",
    "known",
    "metric_of",
    "needs_scores",
    "precision_of",
    "shown_name",
    "sign_of",
    "value_of",
]
