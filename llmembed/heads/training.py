"""The one head-training loop: single fits, sweeps, seeds and benchmarks all go through it.

It trains a group of fits in step with each other; a single fit is a group of one. What a step is
lies behind ``stepping.Stepper``: ``by_autograd`` takes any torch module, ``by_hand`` puts fits of
equal shape side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from llmembed.contract import Reporter, Silent, Task
from llmembed.errors import CollapseError, ConfigError, LlmembedError
from llmembed.heads.by_autograd import ByAutograd
from llmembed.heads.by_hand import ByHand, Stack
from llmembed.heads.checks import check_labels, check_views
from llmembed.heads.config import HeadConfig
from llmembed.heads.judging import quality, raise_on_collapse, temperatures
from llmembed.heads.modules import FusedHeads, FusionModule
from llmembed.heads.rows import Views
from llmembed.heads.shared import Fit, Pool, can_be_stacked, shape_key
from llmembed.heads.stepping import Labels, Lesson, Stepper
from llmembed.heads.trained import TrainedHead, pick_device

OnEpoch = Callable[[int, int, Mapping[str, float]], None]
"""Called with a fit's number, the epoch and what validation says of it."""


def train_head(
    fusion: FusionModule,
    views: Views,
    labels: Labels,
    tasks: Sequence[Task],
    *,
    valid_views: Views,
    valid_labels: Labels,
    config: HeadConfig | None = None,
    reporter: Reporter | None = None,
    device: str = "auto",
    threads: int | None = None,
    resident: bool | None = None,
) -> TrainedHead:
    """Train ``fusion`` and one head per task on the training rows, choose on the validation rows.

    ``views``: name -> (N, L, D), arrays or memory maps; ``labels``: task -> int64 (N,) for
    ``single``, bool (N, C) for ``multi``. The tasks' losses are summed. What a fusion without
    parameters makes of the views is computed once; it stays on the device when it fits in half of
    the free memory, otherwise batches are read from ``views`` as they come (``resident`` decides
    instead). ``reporter`` hears of every epoch. The caller's random state and number of threads
    are left as they were. The ``fusion`` module is initialised by ``config.seed`` and trained
    in place.

    Raises ``DataError`` for views and labels that do not fit together or are not finite,
    ``UnsupportedError`` for word tasks, ``ConfigError`` when the loss stops being finite,
    ``CollapseError`` when one answer is given to all validation texts of several classes.
    """
    fit = Fit(fusion=fusion, views=views, valid_views=valid_views, config=config or HeadConfig())
    heard = reporter or Silent()
    [trained] = train_grouped(
        [fit],
        labels,
        tasks,
        valid_labels=valid_labels,
        on_epoch=None
        if isinstance(heard, Silent)
        else lambda _, epoch, metrics: heard.report(metrics, step=epoch),
        device=device,
        threads=threads,
        resident=resident,
    )
    if isinstance(trained, LlmembedError):
        raise trained
    return trained


def train_grouped(
    fits: Sequence[Fit],
    labels: Labels,
    tasks: Sequence[Task],
    *,
    valid_labels: Labels,
    on_epoch: OnEpoch | None = None,
    device: str = "auto",
    threads: int | None = None,
    resident: bool | None = None,
    pool: Pool | None = None,
    stack: Stack | None = None,
) -> list[TrainedHead | LlmembedError]:
    """Train ``fits`` of one ``shape_key``, each as ``train_head`` says.

    A fit that fails alone (its loss is not finite, it collapses) leaves its error in its place and
    does not disturb the others. A group of several is held in memory whole, and so is one of a
    ``pool``, which keeps what groups share; ``stack`` is needed for their fusions with parameters.
    ``resident`` is for a group of one without a pool. Raises what ``train_head`` raises for views
    and labels that do not fit together.
    """
    place = pick_device(device)
    for fit in fits:
        count = check_views(fit.views, fit.fusion.shapes, "training")
        valid_count = check_views(fit.valid_views, fit.fusion.shapes, "validation")
    check_labels(labels, tasks, count, "training")
    check_labels(valid_labels, tasks, valid_count, "validation")
    with _threads(threads), _randomness_kept(place):
        lesson = Lesson.make(tasks, labels, valid_labels, place)
        models = [_drawn(fit, tasks, place) for fit in fits]
        with torch.no_grad():
            stepper: Stepper
            if len(fits) == 1 and (pool is None or not can_be_stacked(fits[0])):
                stepper = ByAutograd(fits[0], models[0], lesson, resident=resident)
            else:
                shapes = {shape_key(fit, count) for fit in fits}
                assert len(shapes) == 1, "one group, one shape"
                stepper = ByHand(fits, models, lesson, pool=pool or Pool(place), stack=stack)
            loop = _Loop(fits, models, lesson, stepper, on_epoch)
            loop.run()
            return [loop.finished(number) for number in range(len(fits))]


class _Loop:
    """The state of one group's training; what is told by fit has its number for a key."""

    def __init__(
        self,
        fits: Sequence[Fit],
        models: Sequence[FusedHeads],
        lesson: Lesson,
        stepper: Stepper,
        on_epoch: OnEpoch | None,
    ) -> None:
        self.configs = [fit.config for fit in fits]
        self.models, self.lesson, self.stepper, self.on_epoch = models, lesson, stepper, on_epoch
        self.config = self.configs[0]
        self.batch = self.config.batch_for(lesson.count)
        self.per_epoch = math.ceil(lesson.count / self.batch)
        self.orders = {c.seed: torch.Generator().manual_seed(c.seed) for c in self.configs}
        self.best: dict[int, tuple[float, float]] = {}
        self.waited: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.errors: dict[int, LlmembedError] = {}

    def run(self) -> None:
        """All epochs, fewer where every fit is done before."""
        for epoch in range(1, self.config.epochs + 1):
            losses = self._epoch(epoch)
            going_on = [row for row, loss in enumerate(losses) if self._goes_on(row, epoch, loss)]
            if len(going_on) < len(losses):
                self.stepper.keep(going_on)
            if not going_on:
                return
        if self.config.patience is None:
            for row in range(len(self.stepper.active)):
                self.stepper.save(row)

    def _epoch(self, epoch: int) -> list[float]:
        """One pass over the training rows, in an order of the seed's own; the mean losses."""
        seeds = [self.configs[number].seed for number in self.stepper.active]
        count, device = self.lesson.count, self.lesson.device
        order = {s: torch.randperm(count, generator=self.orders[s]) for s in dict.fromkeys(seeds)}
        orders = torch.stack([order[seed] for seed in seeds]).to(device)
        total = torch.zeros(len(seeds), device=device)
        for number, rows in enumerate(torch.split(orders, self.batch, dim=1)):
            share = self._share((epoch - 1) * self.per_epoch + number)
            total += self.stepper.step(rows, share) * rows.shape[1]
        return [each / count for each in total.tolist()]

    def _share(self, step: int) -> float:
        """Of the learning rate at ``step``: one epoch of warm-up, then half a cosine."""
        if self.config.schedule == "constant":
            return 1.0
        passed = step / (self.per_epoch * self.config.epochs)
        return min(1.0, (step + 1) / self.per_epoch) * 0.5 * (1 + math.cos(math.pi * passed))

    def _goes_on(self, row: int, epoch: int, loss: float) -> bool:
        """Score the epoch and keep weights that are the best so far; whether to train on."""
        number = self.stepper.active[row]
        patience = self.config.patience
        self.epochs[number] = epoch
        if not math.isfinite(loss):
            self.errors[number] = ConfigError(
                f"the training loss is {loss} in epoch {epoch}: lower the learning rate "
                f"({self.configs[number].learning_rate}) or use standardised inputs"
            )
            return False
        if patience is None and self.on_epoch is None:
            return True
        metrics = quality(self.lesson.tasks, self.stepper.logits(row), self.lesson.valid_truth)
        if self.on_epoch is not None:
            self.on_epoch(number, epoch, {"train_loss": loss, **metrics})
        if patience is None:
            return True
        score = (metrics["valid_accuracy"], -metrics["valid_loss"])
        if number not in self.best or score > self.best[number]:
            self.best[number], self.waited[number] = score, 0
            self.stepper.save(row)
            return True
        self.waited[number] += 1
        return self.waited[number] < patience

    def finished(self, number: int) -> TrainedHead | LlmembedError:
        """The fit with its chosen weights, or why it failed."""
        if number in self.errors:
            return self.errors[number]
        tasks, truth, config = self.lesson.tasks, self.lesson.valid_truth, self.configs[number]
        logits = self.stepper.chosen(number)
        try:
            raise_on_collapse(tasks, logits, truth)
        except CollapseError as error:
            return error
        return TrainedHead(
            model=self.models[number].eval(),
            tasks=tasks,
            config=config,
            temperatures=temperatures(tasks, logits, truth)
            if config.calibrate
            else (1.0,) * len(tasks),
            metrics=quality(tasks, logits, truth),
            epochs=self.epochs[number],
            best_epoch=self.epochs[number] - self.waited.get(number, 0),
        )


def _drawn(fit: Fit, tasks: Sequence[Task], device: torch.device) -> FusedHeads:
    """Fusion and heads with weights that follow from the seed and not from the caller's random
    state; torch draws on from there."""
    torch.default_generator.manual_seed(fit.config.seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(fit.config.seed)
    assert isinstance(fit.fusion, nn.Module)
    for module in fit.fusion.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return FusedHeads(fit.fusion, tasks, fit.config).to(device)


@contextmanager
def _randomness_kept(device: torch.device) -> Iterator[None]:
    """Torch's random state on the CPU and on ``device`` is put back afterwards; other devices are
    not touched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
