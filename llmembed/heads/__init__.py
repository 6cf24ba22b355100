"""Features (B, F) become logits (B, C), one head per task; one loop trains them all.

``training`` is that loop, for a single fit (``train_head``) and for many side by side
(``train_grouped``), and ``trained.TrainedHead`` what it leaves; the fusion before the heads is
handed in as a module. A new head is a function that builds a module and one line in ``HEADS``.
"""

from __future__ import annotations

from llmembed.heads.config import HEADS, HeadConfig

__all__ = ["HEADS", "HeadConfig"]
