"""AdamW (Loshchilov and Hutter, 2019) on the parameters of G fits side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class StackedAdamW:
    """``rates``: each fit's learning rate and weight decay; fits of one rate and decay that stand
    together are stepped by one call. Parameters are (G, …)."""

    def __init__(self, parameters: Sequence[Tensor], rates: Sequence[tuple[float, float]]) -> None:
        self.rates = list(rates)
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self.steps = 0

    def step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], share: float) -> None:
        """In place; ``share``: of the learning rate, as the schedule has it."""
        step = torch.tensor(float(self.steps), device=parameters[0].device)
        for start, stop in self._runs():
            cut = slice(start, stop)
            rate, decay = self.rates[start]
            adamw(
                [p[cut] for p in parameters],
                [g[cut] for g in gradients],
                [m[cut] for m, _ in self.moments],
                [v[cut] for _, v in self.moments],
                [],
                [step.clone() for _ in parameters],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate * share,
                weight_decay=decay,
                eps=1e-8,
                maximize=False,
            )
        self.steps += 1

    def _runs(self) -> list[tuple[int, int]]:
        """Runs of fits with one rate and decay: (start, stop)."""
        runs: list[tuple[int, int]] = []
        for row, own in enumerate(self.rates):
            if runs and self.rates[runs[-1][0]] == own:
                runs[-1] = (runs[-1][0], row + 1)
            else:
                runs.append((row, row + 1))
        return runs

    def keep(self, rows: Tensor) -> None:
        """Go on with the fits at ``rows`` (G',) alone."""
        self.rates = [self.rates[row] for row in rows.tolist()]
        self.moments = [(m[rows], v[rows]) for m, v in self.moments]
