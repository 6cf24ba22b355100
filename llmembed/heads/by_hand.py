"""G fits of equal shape side by side: batched products, the derivative written out.

σ, learning rate, weight decay, dropout, class weights, label smoothing and seeds are rows of one
batch; what views and fusions without parameters give is computed once for all fits that share it.
A fit's weights are drawn and its rows shuffled as alone; only dropout draws differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from llmembed.heads.losses import Targets
from llmembed.heads.modules import FusedHeads, FusionModule
from llmembed.heads.shared import Fit, Pool, SharedRows, StackedFusion
from llmembed.heads.stacked import DropoutDraws, StackedHeads, cuts_of
from llmembed.heads.stacked_adamw import StackedAdamW
from llmembed.heads.stepping import Lesson
from llmembed.heads.trained import pick_precision

Stack = Callable[[Sequence[FusionModule], torch.device, torch.dtype], StackedFusion]
"""Puts fusions that have parameters side by side: ``llmembed.fusion.grouped.stack``."""


class ByHand:
    """``fits`` of one ``shape_key``, each of which ``can_be_stacked``."""

    def __init__(
        self,
        fits: Sequence[Fit],
        models: Sequence[FusedHeads],
        lesson: Lesson,
        *,
        pool: Pool,
        stack: Stack | None,
    ) -> None:
        device = lesson.device
        self.models = [model.eval() for model in models]
        bf16 = pick_precision(fits[0].config.precision, device) == "bf16"
        low = torch.bfloat16 if bf16 else torch.float32
        parametric = fits[0].fusion.has_parameters
        self.rows = SharedRows(fits, self.models, pool, low, parametric=parametric)
        # Fits of one rate and decay stand together: one call steps them all. So do those of one
        # seed, which read the same batches.
        rates = [(fit.config.learning_rate, fit.config.weight_decay) for fit in fits]
        self.active = sorted(range(len(fits)), key=lambda i: (rates[i], fits[i].config.seed))
        self.numbers = torch.tensor(self.active, device=device)
        configs = [fits[i].config for i in self.active]
        cuts = cuts_of(configs, device)
        self.stacks = [
            StackedHeads([self.models[i].heads[t] for i in self.active], cuts, low)
            for t in range(len(lesson.tasks))
        ]
        self.fusion: StackedFusion | None = None
        if parametric:
            assert stack is not None, "fusions with parameters need `stack`"
            fusions = [cast(FusionModule, self.models[i].fusion) for i in self.active]
            self.fusion = stack(fusions, device, low)
        self.targets = [Targets.make(t, lesson.truth[t.name], configs) for t in lesson.tasks]
        self.draws = [DropoutDraws([c.seed for c in configs], cuts, low) for _ in lesson.tasks]
        self.optimiser = StackedAdamW(self.parameters, [rates[i] for i in self.active])
        self._choice: dict[int, list[Tensor]] = {}

    @property
    def parameters(self) -> list[Tensor]:
        own = [p for stack in self.stacks for p in stack.parameters]
        return own + (self.fusion.parameters if self.fusion else [])

    def step(self, rows: Tensor, share: float) -> Tensor:
        if self.fusion is None:
            features = self.rows.features(self.numbers, rows)
        else:
            runs = self.rows.batches(self.fusion, self.numbers, rows, self.draws[0])
            features = self.rows.joined(self.fusion.forward(runs), self.numbers, rows, runs)
        losses = torch.zeros(len(rows), device=rows.device)
        towards: Tensor | None = None
        for stack, targets, draws in zip(self.stacks, self.targets, self.draws, strict=True):
            masks = draws.draw(rows.shape[1], stack.widths()) if stack.drops else []
            loss, d = targets.loss(stack.forward(features, masks), rows)
            losses += loss
            back = stack.backward(d, features=self.fusion.products if self.fusion else 0)
            if back is not None:
                towards = back.float() if towards is None else towards + back.float()
        gradients = [g for stack in self.stacks for g in stack.gradients]
        if self.fusion is not None and towards is not None:
            self.fusion.backward(self.rows.unscaled(towards, self.numbers))
            gradients += self.fusion.gradients
        self.optimiser.step(self.parameters, gradients, share)
        for stack in self.stacks:
            stack.refresh()
        if self.fusion is not None:
            self.fusion.refresh()
        return losses

    def logits(self, row: int) -> list[Tensor]:
        number = self.active[row]
        if self.fusion is not None:
            self._set_fusion(number, self.fusion.values(row))
        x = self.rows.valid(number, self.models[number])
        return [stack.logits(x, row) for stack in self.stacks]

    def save(self, row: int) -> None:
        number = self.active[row]
        if self.fusion is not None:
            self._choice[number] = [value.clone() for value in self.fusion.values(row)]
        for head, stack in zip(self.models[number].heads, self.stacks, strict=True):
            linears = [m for m in head.modules() if isinstance(m, nn.Linear)]
            for m, weight, bias in zip(linears, stack.weights, stack.biases, strict=True):
                m.weight.copy_(weight[row])
                m.bias.copy_(bias[row])

    def keep(self, rows: Sequence[int]) -> None:
        self.active = [self.active[row] for row in rows]
        at = torch.tensor(rows, dtype=torch.int64, device=self.numbers.device)
        self.numbers = self.numbers[at]
        self.optimiser.keep(at)
        for stack, draws in zip(self.stacks, self.draws, strict=True):
            stack.keep(at)
            draws.keep(at)
        if self.fusion is not None:
            self.fusion.keep(at)
        self.targets = [targets.keep(at) for targets in self.targets]

    def chosen(self, number: int) -> list[Tensor]:
        model = self.models[number]
        if self.fusion is not None:
            self._set_fusion(number, self._choice[number])
        return model.logits(self.rows.valid(number, model))

    def _set_fusion(self, number: int, values: Sequence[Tensor]) -> None:
        own = cast(nn.Module, self.models[number].fusion).parameters()
        for p, value in zip(own, values, strict=True):
            p.copy_(value)
