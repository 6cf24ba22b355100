"""A group of one, whatever its fusion and head are made of: autograd finds the derivative."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmembed.heads.losses import loss_modules
from llmembed.heads.modules import FusedHeads
from llmembed.heads.rows import Rows
from llmembed.heads.shared import Fit
from llmembed.heads.stepping import Lesson
from llmembed.heads.trained import pick_precision


class ByAutograd:
    """One fit; rows that do not fit in memory are read as they come (see ``Rows``)."""

    def __init__(
        self, fit: Fit, model: FusedHeads, lesson: Lesson, *, resident: bool | None
    ) -> None:
        config, device = fit.config, lesson.device
        self.active = [0]
        self.model, self.lesson = model, lesson
        self.bf16 = pick_precision(config.precision, device) == "bf16"
        model.eval()
        self.rows = Rows(
            model, fit.views, lesson.count, device, resident=resident, fit=True, bf16=self.bf16
        )
        valid_count = len(next(iter(lesson.valid_truth.values())))
        self.valid = Rows(model, fit.valid_views, valid_count, device, resident=resident)
        model.train()
        self.losses = loss_modules(lesson.tasks, lesson.truth, config)
        self.learning_rate = config.learning_rate
        self.optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._choice: dict[str, Tensor] = {}

    def step(self, rows: Tensor, share: float) -> Tensor:
        [batch] = rows
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * share
        with torch.enable_grad():
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.bf16):
                answers = self.model.logits(self.rows.features(batch))
            loss = torch.stack(
                [
                    each(said.float(), self.lesson.truth[task.name].index_select(0, batch))
                    for each, said, task in zip(
                        self.losses, answers, self.lesson.tasks, strict=True
                    )
                ]
            ).sum()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach().view(1)

    def logits(self, row: int) -> list[Tensor]:
        answers = self.valid.logits()
        self.model.train()
        return answers

    def save(self, row: int) -> None:
        """With buffers: a module of others may hold means that training moves."""
        self._choice = {name: v.detach().clone() for name, v in self.model.state_dict().items()}

    def keep(self, rows: Sequence[int]) -> None:
        self.active = [self.active[row] for row in rows]

    def chosen(self, number: int) -> list[Tensor]:
        self.model.load_state_dict(self._choice)
        return self.valid.logits()
