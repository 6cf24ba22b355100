"""From logits to the next tokens: greedy, or drawn with each prompt's own random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


def draws(ids: Sequence[int], seed: int, count: int) -> npt.NDArray[np.float64]:
    """``count`` numbers in [0, 1) that depend on the prompt's tokens and ``seed`` alone, so that
    neither order nor batching changes what is drawn."""
    digest = hashlib.sha256(np.asarray([seed, *ids], dtype="<i8").tobytes()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    return generator.random(count)


def choose(
    logits: torch.Tensor, temperature: float, top_p: float, drawn: Sequence[float]
) -> torch.Tensor:
    """The next token of each row, int64 (B,). ``logits``: float32 (B, vocabulary)."""
    import torch

    if temperature == 0:
        return logits.argmax(dim=-1)
    # In float64, so that the sum of a large vocabulary does not decide.
    ranked, order = torch.sort(
        torch.softmax(logits.double() / temperature, dim=-1), dim=-1, descending=True, stable=True
    )
    sums = ranked.cumsum(dim=-1)
    # The fewest tokens that reach top_p together; always the first.
    kept = (sums - ranked) < top_p
    kept[:, 0] = True
    totals = (ranked * kept).sum(dim=-1, keepdim=True)
    aims = torch.tensor(list(drawn), dtype=torch.float64, device=logits.device)[:, None] * totals
    places = (sums <= aims).sum(dim=-1, keepdim=True)
    places = torch.minimum(places, kept.sum(dim=-1, keepdim=True) - 1)
    return order.gather(1, places).squeeze(1)
