"""The one head-training loop: single fits, sweeps, seeds and benchmarks all go through it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from llmembed.contract import Reporter, Silent, Task
from llmembed.errors import CollapseError, ConfigError
from llmembed.heads.calibration import fit_temperature
from llmembed.heads.checks import check_labels, check_views
from llmembed.heads.config import HeadConfig
from llmembed.heads.modules import FusedHeads, FusionModule
from llmembed.heads.rows import Rows, Views
from llmembed.heads.trained import TrainedHead, pick_device, pick_precision

FEWEST_TO_JUDGE = 20
"""Validation texts below which one answer to all of them is not taken for a collapse."""

Labels = Mapping[str, npt.NDArray[np.generic]]


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seed torch on the CPU and on ``device`` for this block and put its state back afterwards;
    other devices are not touched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _losses(
    tasks: Sequence[Task], labels: Mapping[str, Tensor], config: HeadConfig
) -> list[nn.Module]:
    """Cross-entropy on logits for ``single``, binary cross-entropy on logits for ``multi``."""
    losses: list[nn.Module] = []
    for task in tasks:
        truth = labels[task.name]
        if task.kind == "multi":
            positive = truth.float().sum(0)
            weights = ((len(truth) - positive) / positive.clamp_min(1)).clamp(0.1, 100)
            losses.append(
                nn.BCEWithLogitsLoss(pos_weight=weights if config.class_weights else None)
            )
        else:
            count = torch.bincount(truth, minlength=len(task.classes)).clamp_min(1)
            weights = len(truth) / (len(task.classes) * count.float())
            losses.append(
                nn.CrossEntropyLoss(
                    weight=weights if config.class_weights else None,
                    label_smoothing=config.label_smoothing,
                )
            )
    return losses


def _rate(config: HeadConfig, step: int, per_epoch: int) -> float:
    """Share of the learning rate at ``step``: one epoch of warm-up, then half a cosine."""
    if config.schedule == "constant":
        return 1.0
    share = step / (per_epoch * config.epochs)
    return min(1.0, (step + 1) / per_epoch) * 0.5 * (1 + math.cos(math.pi * share))


def _quality(
    tasks: Sequence[Task], logits: Sequence[Tensor], labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """Accuracy by task (``multi``: F1 over all cells), their mean, and the summed loss."""
    metrics: dict[str, float] = {}
    loss = 0.0
    for task, answers in zip(tasks, logits, strict=True):
        truth = labels[task.name]
        if task.kind == "multi":
            said = answers > 0
            both = (said & truth.bool()).sum().item()
            quality = 2 * both / max(1, said.sum().item() + truth.sum().item())
            loss += nn.functional.binary_cross_entropy_with_logits(answers, truth).item()
        else:
            quality = (answers.argmax(1) == truth).float().mean().item()
            loss += nn.functional.cross_entropy(answers, truth).item()
        metrics[f"valid_accuracy/{task.name}"] = quality
    metrics["valid_accuracy"] = sum(metrics.values()) / len(tasks)
    metrics["valid_loss"] = loss
    return metrics


def _raise_on_collapse(
    tasks: Sequence[Task], logits: Sequence[Tensor], labels: Mapping[str, Tensor]
) -> None:
    """One answer to all texts is a collapse where it can't be chance or caution: not among a
    handful of texts, and not where no label of ``multi`` passes one half."""
    for task, answers in zip(tasks, logits, strict=True):
        truth = labels[task.name]
        said = (answers > 0) if task.kind == "multi" else answers.argmax(1)
        if len(truth) < FEWEST_TO_JUDGE or (task.kind == "multi" and not bool(said.any())):
            continue
        if bool((said == said[:1]).all()) and not bool((truth == truth[:1]).all()):
            answer = (
                "the same classes"
                if task.kind == "multi"
                else repr(task.classes[int(said[0].item())])
            )
            raise CollapseError(
                f"the fit answers {answer} to every validation text of the task {task.name!r}: "
                "try standardised inputs, another learning rate or class weights"
            )


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
    config = config or HeadConfig()
    reporter = reporter or Silent()
    count = check_views(views, fusion.shapes, "training")
    valid_count = check_views(valid_views, fusion.shapes, "validation")
    check_labels(labels, tasks, count, "training")
    check_labels(valid_labels, tasks, valid_count, "validation")
    place = pick_device(device)
    with _threads(threads), _own_randomness(config.seed, place) as order:
        _initialise(fusion)
        model = FusedHeads(fusion, tasks, config)
        model.to(place)
        bf16 = pick_precision(config.precision, place) == "bf16"
        rows = Rows(model, views, count, place, resident=resident, fit=True, bf16=bf16)
        valid = Rows(model, valid_views, valid_count, place, resident=resident)
        truth = _truth(labels, tasks, place)
        valid_truth = _truth(valid_labels, tasks, place)
        epochs = _optimise(
            model, rows, valid, truth, valid_truth, tasks, config, reporter, order, bf16
        )
        logits = valid.logits()
        _raise_on_collapse(tasks, logits, valid_truth)
        temperatures = [
            fit_temperature(answers, valid_truth[task.name], task.kind) if config.calibrate else 1.0
            for task, answers in zip(tasks, logits, strict=True)
        ]
        metrics = _quality(tasks, logits, valid_truth)
    return TrainedHead(
        model=model.eval(),
        tasks=tuple(tasks),
        config=config,
        temperatures=tuple(temperatures),
        metrics=metrics,
        epochs=epochs,
    )


def _initialise(fusion: FusionModule) -> None:
    """Draw the fusion's weights anew, so that they follow from the seed and not from the caller's
    random state."""
    assert isinstance(fusion, nn.Module)
    for module in fusion.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()


def _truth(labels: Labels, tasks: Sequence[Task], device: torch.device) -> dict[str, Tensor]:
    kinds = {"single": np.int64, "multi": np.float32}
    return {
        task.name: torch.from_numpy(labels[task.name].astype(kinds[task.kind])).to(device)
        for task in tasks
    }


def _optimise(
    model: FusedHeads,
    rows: Rows,
    valid: Rows,
    truth: Mapping[str, Tensor],
    valid_truth: Mapping[str, Tensor],
    tasks: Sequence[Task],
    config: HeadConfig,
    reporter: Reporter,
    order: torch.Generator,
    bf16: bool,
) -> int:
    """Run the epochs, leave the chosen weights in ``model``; returns how many epochs ran."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    losses = _losses(tasks, truth, config)
    device = rows.device
    batch_rows = config.batch_for(rows.count)
    per_epoch = math.ceil(rows.count / batch_rows)
    best: tuple[float, float] | None = None
    kept: list[Tensor] = []
    waited = 0
    epoch = 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        total = torch.zeros((), device=device)
        shuffled = torch.randperm(rows.count, generator=order)
        for number, batch in enumerate(torch.split(shuffled, batch_rows)):
            rate = config.learning_rate * _rate(config, (epoch - 1) * per_epoch + number, per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = batch.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                answers = model.logits(rows.features(batch))
            loss = torch.stack(
                [
                    each(said.float(), truth[task.name].index_select(0, batch))
                    for each, said, task in zip(losses, answers, tasks, strict=True)
                ]
            ).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.detach() * len(batch)
        mean_loss = total.item() / rows.count
        if not math.isfinite(mean_loss):
            raise ConfigError(
                f"the training loss is {mean_loss} in epoch {epoch}: lower the learning rate "
                f"({config.learning_rate}) or use standardised inputs"
            )
        if config.patience is None and not reporter_listens(reporter):
            continue
        metrics = _quality(tasks, valid.logits(), valid_truth)
        reporter.report({"train_loss": mean_loss, **metrics}, step=epoch)
        if config.patience is None:
            continue
        score = (metrics["valid_accuracy"], -metrics["valid_loss"])
        if best is None or score > best:
            best, waited = score, 0
            kept = [p.detach().clone() for p in parameters]
        else:
            waited += 1
            if waited >= config.patience:
                break
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=False):
            parameter.copy_(value)
    return epoch


def reporter_listens(reporter: Reporter) -> bool:
    """Whether epochs need scoring for somebody's sake."""
    return not isinstance(reporter, Silent)
