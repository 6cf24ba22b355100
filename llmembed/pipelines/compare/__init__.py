"""``compare`` and ``fit``: methods race on one corpus, the best is kept and registered."""

from __future__ import annotations

from llmembed.pipelines.compare.command import Compared, compare, fit
from llmembed.pipelines.compare.report import report, show_recipes

__all__ = ["Compared", "compare", "fit", "report", "show_recipes"]
