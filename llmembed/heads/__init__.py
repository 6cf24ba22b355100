"""Features (B, F) become logits (B, C), one head per task; one loop trains them all.

``training.train_head`` is that loop and ``trained.TrainedHead`` what it leaves; the fusion
before the heads is handed in as a module. A new head is a function that builds a module and one
line in ``HEADS``.
"""

from __future__ import annotations

from llmembed.heads.config import HEADS, HeadConfig

__all__ = ["HEADS", "HeadConfig"]
