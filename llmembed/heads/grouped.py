"""Many small heads trained at once, each as ``training.train_head`` would train it alone.

Fits of equal shape form a group: σ, learning rate, weight decay, dropout, class weights, label
smoothing and seeds are rows of one batch. A fit's weights are drawn and its rows shuffled by its
own seed, exactly as alone; only dropout draws differ. What views and fusions without parameters
give is computed once for all fits that share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from llmembed.contract import Task
from llmembed.errors import CollapseError, ConfigError, LlmembedError
from llmembed.heads.calibration import fit_temperature
from llmembed.heads.checks import check_labels, check_views
from llmembed.heads.modules import FusedHeads, FusionModule
from llmembed.heads.shared import Fit, Pool, SharedRows, StackedFusion, shape_key
from llmembed.heads.stacked import DropoutDraws, StackedHeads, Targets, cuts_of
from llmembed.heads.stacked_adamw import StackedAdamW
from llmembed.heads.trained import TrainedHead, pick_device, pick_precision
from llmembed.heads.training import (
    Labels,
    _initialise,
    _own_randomness,
    _quality,
    _raise_on_collapse,
    _rate,
    _threads,
    _truth,
)

Stack = Callable[[Sequence[FusionModule], torch.device, torch.dtype], StackedFusion]
"""Puts fusions that have parameters side by side: ``llmembed.fusion.grouped.stack``."""
OnEpoch = Callable[[int, int, Mapping[str, float]], None]
"""Called with a fit's number, the epoch and what validation says of it."""


def train_grouped(
    fits: Sequence[Fit],
    labels: Labels,
    tasks: Sequence[Task],
    *,
    valid_labels: Labels,
    on_epoch: OnEpoch | None = None,
    device: str = "auto",
    threads: int | None = None,
    pool: Pool | None = None,
    stack: Stack | None = None,
) -> list[TrainedHead | LlmembedError]:
    """Train ``fits`` of one ``shape_key`` side by side; see ``train_head`` for the recipe.

    A fit that fails alone (its loss is not finite, it collapses) leaves its error in its place and
    does not disturb the others. ``pool`` keeps what several groups share; ``stack`` is needed
    for fusions with parameters. Raises what ``train_head`` raises for views and labels that do
    not fit together.
    """
    place = pick_device(device)
    for fit in fits:
        count = check_views(fit.views, fit.fusion.shapes, "training")
        valid_count = check_views(fit.valid_views, fit.fusion.shapes, "validation")
    check_labels(labels, tasks, count, "training")
    check_labels(valid_labels, tasks, valid_count, "validation")
    assert len({shape_key(fit, count) for fit in fits}) == 1, "one group, one shape"
    with _threads(threads), torch.no_grad():
        truth, valid_truth = _truth(labels, tasks, place), _truth(valid_labels, tasks, place)
        pool = pool or Pool(place)
        group = _Group(fits, tasks, truth, valid_truth, count, place, pool, stack, on_epoch)
        group.run()
        return [group.finished(number) for number in range(len(fits))]


class _Group:
    """The state of one group. ``active`` (G',) says which fit each row of the batch is."""

    def __init__(
        self,
        fits: Sequence[Fit],
        tasks: Sequence[Task],
        truth: Mapping[str, Tensor],
        valid_truth: Mapping[str, Tensor],
        count: int,
        device: torch.device,
        pool: Pool,
        stack: Stack | None,
        on_epoch: OnEpoch | None,
    ) -> None:
        self.fits, self.tasks, self.valid_truth = fits, tasks, valid_truth
        self.count, self.device, self.on_epoch = count, device, on_epoch
        self.config = fits[0].config
        bf16 = pick_precision(self.config.precision, device) == "bf16"
        self.low = torch.bfloat16 if bf16 else torch.float32
        self.models: list[FusedHeads] = []
        self.orders: list[torch.Generator] = []
        for fit in fits:
            with _own_randomness(fit.config.seed, device) as order, torch.enable_grad():
                _initialise(fit.fusion)
                self.models.append(FusedHeads(fit.fusion, tasks, fit.config).to(device).eval())
                self.orders.append(order)
        self.parametric = fits[0].fusion.has_parameters
        self.rows = SharedRows(fits, self.models, pool, self.low, parametric=self.parametric)
        # Fits of one rate and decay stand together: one call steps them all. So do those of one
        # seed, which read the same batches.
        rates = [(f.config.learning_rate, f.config.weight_decay) for f in fits]
        together = sorted(range(len(fits)), key=lambda i: (rates[i], fits[i].config.seed))
        self.active = torch.tensor(together, device=device)
        configs = [fits[i].config for i in self.active.tolist()]
        cuts = cuts_of(configs, device)
        in_order = [self.models[i] for i in self.active.tolist()]
        self.stacks = [
            StackedHeads([model.heads[t] for model in in_order], cuts, self.low)
            for t in range(len(tasks))
        ]
        self.fusion: StackedFusion | None = None
        if self.parametric:
            assert stack is not None, "fusions with parameters need `stack`"
            fusions = [cast(FusionModule, m.fusion) for m in in_order]
            self.fusion = stack(fusions, device, self.low)
        self.targets = [Targets.make(task, truth[task.name], configs) for task in tasks]
        seeds = [c.seed for c in configs]
        self.draws = [DropoutDraws(seeds, cuts, self.low) for _ in tasks]
        self.optimiser = StackedAdamW(self.parameters, [rates[i] for i in together])
        self.best: dict[int, tuple[float, float]] = {}
        self.waited = dict.fromkeys(range(len(fits)), 0)
        self.epochs = dict.fromkeys(range(len(fits)), 0)
        self.errors: dict[int, LlmembedError] = {}
        self.chosen: dict[int, list[Tensor]] = {}

    @property
    def parameters(self) -> list[Tensor]:
        own = [p for stack in self.stacks for p in stack.parameters]
        return own + (self.fusion.parameters if self.fusion else [])

    def run(self) -> None:
        per_epoch = math.ceil(self.count / self.config.batch_for(self.count))
        for epoch in range(1, self.config.epochs + 1):
            losses = self._epoch(epoch, per_epoch)
            done = self._judge(epoch, losses)
            if done:
                self._keep([i for i in self.active.tolist() if i not in done])
            if not len(self.active):
                return
        if self.config.patience is None:
            for row, number in enumerate(self.active.tolist()):
                self._save(number, row)

    def _epoch(self, epoch: int, per_epoch: int) -> Tensor:
        """One pass over the training rows; mean losses (G,)."""
        numbers = self.active.tolist()
        shuffled: dict[int, Tensor] = {}
        for i in numbers:  # fits of one seed shuffle alike; each still draws from its own stream
            order = torch.randperm(self.count, generator=self.orders[i])
            shuffled.setdefault(self.fits[i].config.seed, order)
        orders = torch.stack([shuffled[self.fits[i].config.seed] for i in numbers]).to(self.device)
        total = torch.zeros(len(numbers), device=self.device)
        size = self.config.batch_for(self.count)
        for number, rows in enumerate(torch.split(orders, size, dim=1)):
            share = _rate(self.config, (epoch - 1) * per_epoch + number, per_epoch)
            total += self._step(rows, share) * rows.shape[1]
        return total / self.count

    def _step(self, rows: Tensor, share: float) -> Tensor:
        if self.fusion is None:
            features = self.rows.features(self.active, rows)
        else:
            runs = self.rows.batches(self.fusion, self.active, rows, self.draws[0])
            features = self.rows.joined(self.fusion.forward(runs), self.active, rows, runs)
        losses = torch.zeros(len(rows), device=self.device)
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
            self.fusion.backward(self.rows.unscaled(towards, self.active))
            gradients += self.fusion.gradients
        self.optimiser.step(self.parameters, gradients, share)
        for stack in self.stacks:
            stack.refresh()
        if self.fusion is not None:
            self.fusion.refresh()
        return losses

    def _judge(self, epoch: int, losses: Tensor) -> set[int]:
        """Score the epoch, keep weights that are the best so far; the fits that are done."""
        done: set[int] = set()
        for row, (number, loss) in enumerate(
            zip(self.active.tolist(), losses.tolist(), strict=True)
        ):
            config = self.fits[number].config
            self.epochs[number] = epoch
            if not math.isfinite(loss):
                self.errors[number] = ConfigError(
                    f"the training loss is {loss} in epoch {epoch}: lower the learning rate "
                    f"({config.learning_rate}) or use standardised inputs"
                )
                done.add(number)
                continue
            if config.patience is None and self.on_epoch is None:
                continue
            metrics = _quality(self.tasks, self._valid_logits(number, row), self.valid_truth)
            if self.on_epoch is not None:
                self.on_epoch(number, epoch, {"train_loss": loss, **metrics})
            if config.patience is None:
                continue
            score = (metrics["valid_accuracy"], -metrics["valid_loss"])
            if number not in self.best or score > self.best[number]:
                self.best[number], self.waited[number] = score, 0
                self._save(number, row)
            else:
                self.waited[number] += 1
                if self.waited[number] >= config.patience:
                    done.add(number)
        return done

    def _valid_logits(self, number: int, row: int) -> list[Tensor]:
        if self.fusion is not None:
            self._set_fusion(number, self.fusion.values(row))
        x = self.rows.valid(number, self.models[number])
        return [stack.logits(x, row) for stack in self.stacks]

    def _save(self, number: int, row: int) -> None:
        """Put the row's weights into the fit's own modules."""
        if self.fusion is not None:
            self.chosen[number] = [value.clone() for value in self.fusion.values(row)]
        for head, stack in zip(self.models[number].heads, self.stacks, strict=True):
            linears = [m for m in head.modules() if isinstance(m, nn.Linear)]
            for m, weight, bias in zip(linears, stack.weights, stack.biases, strict=True):
                m.weight.copy_(weight[row])
                m.bias.copy_(bias[row])

    def _set_fusion(self, number: int, values: Sequence[Tensor]) -> None:
        own = cast(nn.Module, self.models[number].fusion).parameters()
        for p, value in zip(own, values, strict=True):
            p.copy_(value)

    def _keep(self, numbers: Sequence[int]) -> None:
        """Go on with these fits alone: what is done costs nothing any more."""
        where = {number: row for row, number in enumerate(self.active.tolist())}
        rows = torch.tensor([where[i] for i in numbers], dtype=torch.int64, device=self.device)
        self.active = self.active[rows]
        self.optimiser.keep(rows)
        for stack, draws in zip(self.stacks, self.draws, strict=True):
            stack.keep(rows)
            draws.keep(rows)
        if self.fusion is not None:
            self.fusion.keep(rows)
        self.targets = [targets.keep(rows) for targets in self.targets]

    def finished(self, number: int) -> TrainedHead | LlmembedError:
        """The fit as ``train_head`` would leave it, or why it failed."""
        if number in self.errors:
            return self.errors[number]
        model, config = self.models[number], self.fits[number].config
        if number in self.chosen:
            self._set_fusion(number, self.chosen[number])
        logits = model.logits(self.rows.valid(number, model))
        try:
            _raise_on_collapse(self.tasks, logits, self.valid_truth)
        except CollapseError as error:
            return error
        temperatures = [
            fit_temperature(answers, self.valid_truth[task.name], task.kind)
            if config.calibrate
            else 1.0
            for task, answers in zip(self.tasks, logits, strict=True)
        ]
        return TrainedHead(
            model=model,
            tasks=tuple(self.tasks),
            config=config,
            temperatures=tuple(temperatures),
            metrics=_quality(self.tasks, logits, self.valid_truth),
            epochs=self.epochs[number],
        )
