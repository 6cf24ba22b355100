"""By what a winner was chosen, and what answers as well for less, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from llmembed.evaluation.paired import Comparison
from llmembed.evaluation.result import Result


def chosen_by(winner: Result | None) -> str:
    """What counted as validation of the winner, and how it chose."""
    folds = winner.folds if winner else 0
    by = "the validation mean less its standard error"
    if folds < 1:
        return f"chosen by {by}"
    where = "the validation texts" if folds == 1 else f"texts left out, in {folds} folds"
    return (
        f"chosen by {by} on {where}; what is cheap to fit was then fitted on train and validation "
        "together, under the calibration and thresholds that these texts gave"
    )


CHEAPER = 1.5
"""By how much less energy a row must take to be named beside a winner that is no better."""


def beside(winner: str, comparisons: Sequence[Comparison]) -> list[str]:
    """Whether something cheaper answers as well, as far as these texts can tell."""
    equal = [
        each
        for each in comparisons
        if not each.distinct and each.energy_ratio is not None and each.energy_ratio >= CHEAPER
    ]
    if not equal:
        return []
    best = max(equal, key=lambda each: each.energy_ratio or 0.0)
    return [
        f"{winner} is not distinguishable from {best.label} "
        f"(p = {best.p:.2f}, McNemar's test on {best.texts:,} texts left out of both), which takes "
        f"{_times(best.energy_ratio or 0.0)} less energy."
    ]


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"
