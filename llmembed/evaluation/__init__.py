"""How good, how sure, how dear: score predictions, benchmark methods, choose one, draw it.

::

    results = evaluate(method, corpus, runtime, seeds=(0, 1, 2))
    board = Leaderboard(results + more)
    board.winner                        # chosen on validation
    front_picture(board, "front.png")

matplotlib is loaded when a picture is drawn, rich when a table is printed.
"""

from __future__ import annotations

from llmembed.evaluation.benchmark import evaluate
from llmembed.evaluation.bootstrap import Interval, bootstrap_interval
from llmembed.evaluation.calibration import apply_temperature, fit_temperature
from llmembed.evaluation.coverage import (
    CoverageCurve,
    Threshold,
    choose_threshold,
    coverage_curve,
    withhold,
)
from llmembed.evaluation.fitted import MeteredPrediction, evaluate_fitted
from llmembed.evaluation.folded import evaluate_folded
from llmembed.evaluation.latency import measure_latency
from llmembed.evaluation.leaderboard import Leaderboard
from llmembed.evaluation.metrics import PRIMARY, ClassScore, Scores, score
from llmembed.evaluation.pictures import (
    confusion_picture,
    coverage_picture,
    front_picture,
    reliability_picture,
)
from llmembed.evaluation.result import Calibration, Latency, Result, Selective
from llmembed.evaluation.rows import Row, Spread
from llmembed.evaluation.selective import promise

__all__ = [
    "PRIMARY",
    "Calibration",
    "ClassScore",
    "CoverageCurve",
    "Interval",
    "Latency",
    "Leaderboard",
    "MeteredPrediction",
    "Result",
    "Row",
    "Scores",
    "Selective",
    "Spread",
    "Threshold",
    "apply_temperature",
    "bootstrap_interval",
    "choose_threshold",
    "confusion_picture",
    "coverage_curve",
    "coverage_picture",
    "evaluate",
    "evaluate_fitted",
    "evaluate_folded",
    "fit_temperature",
    "front_picture",
    "measure_latency",
    "promise",
    "reliability_picture",
    "score",
    "withhold",
]
