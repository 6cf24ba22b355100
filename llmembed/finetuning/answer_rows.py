"""Prompts with their answers as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmembed.finetuning.rows import Rows


@dataclass(frozen=True, kw_only=True)
class AnswerRows:
    """``ids``: of each prompt and its answer; ``starts``: where the answer begins."""

    ids: Sequence[Sequence[int]]
    starts: Sequence[int]

    def rows(self, pad: int) -> Rows:
        """Loss on the answer's tokens alone."""
        import numpy as np

        from llmembed.finetuning.rows import NO_LABEL, Rows

        labels = []
        for ids, start in zip(self.ids, self.starts, strict=True):
            own = np.array(ids, dtype=np.int64)
            own[:start] = NO_LABEL
            labels.append(own)
        return Rows(ids=self.ids, labels={"answer": labels}, pad=pad)
