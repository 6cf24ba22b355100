"""Heads are stopped by the metric of their tasks; focal loss; defaults to the last digit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from llmembed.contract import Task
from llmembed.errors import CollapseError
from llmembed.fusion import build_fusion
from llmembed.heads import HeadConfig
from llmembed.heads.judging import quality, raise_on_collapse
from llmembed.heads.losses import FocalLoss, class_weights, loss_modules
from llmembed.heads.shared import Fit, can_be_stacked
from llmembed.heads.training import train_head
from llmembed.metrics import deciding, measuring

TOPIC = Task(name="topic", classes=("a", "b", "c"))
TAGS = Task(name="tags", classes=("x", "y"), kind="multi")
SHAPES = {"L": (2, 6)}


class Heard:
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def report(self, metrics, *, step):
        self.steps.append(dict(metrics))


def rows(count: int, seed: int):
    """Classes of unequal size that overlap."""
    rng = np.random.default_rng(seed)
    topic = rng.choice(3, count, p=(0.75, 0.2, 0.05))
    tags = np.stack([topic > 0, rng.random(count) < 0.05 + 0.3 * (topic == 2)], axis=1)
    centres = np.random.default_rng(7).normal(size=(3, 12)) * 0.9
    view = centres[topic] + rng.normal(size=(count, 12))
    return {"L": view.reshape(count, 2, 6).astype(np.float32)}, {"topic": topic, "tags": tags}


def logits_and_truth(seed: int):
    torch.manual_seed(seed)
    _, labels = rows(333, seed)
    said = [torch.randn(333, 3), torch.randn(333, 2)]
    truth = {"topic": torch.from_numpy(labels["topic"]), "tags": torch.from_numpy(labels["tags"])}
    return said, {**truth, "tags": truth["tags"].float()}


@pytest.mark.parametrize("seed", range(3))
def test_without_a_metric_the_figures_are_the_tensors_own_to_the_last_bit(seed):
    said, truth = logits_and_truth(seed)
    got = quality([TOPIC, TAGS], said, truth)
    right = (said[0].argmax(1) == truth["topic"]).float().mean().item()
    yes = said[1] > 0
    both = (yes & truth["tags"].bool()).sum().item()
    f1 = 2 * both / (yes.sum().item() + truth["tags"].sum().item())
    assert got["valid_accuracy/topic"] == right and got["valid_accuracy/tags"] == f1
    assert got["valid_accuracy"] == (right + f1) / 2
    assert quality([replace(TOPIC, metric="accuracy"), TAGS], said, truth) == got


@pytest.mark.parametrize("metric", ["macro_f1", "mcc", "log_loss", "recall_at_precision_0.5"])
def test_another_metric_is_what_the_scores_are_worth(metric):
    said, truth = logits_and_truth(0)
    task = replace(TOPIC, metric=metric)
    scores = said[0].softmax(1).numpy()
    expected = measuring.value(task, truth["topic"].numpy(), deciding.answered(task, scores))
    assert quality([task], said[:1], truth)["valid_accuracy/topic"] == expected


@pytest.mark.parametrize(
    "tasks",
    [
        (replace(TOPIC, metric="log_loss"),),
        (replace(TOPIC, metric="balanced_accuracy"), replace(TAGS, metric="macro_f1")),
        (replace(TOPIC, metric="cost", costs=((0.0, 1.0, 1.0), (3.0, 0.0, 1.0), (9.0, 9.0, 0.0))),),
    ],
)
def test_the_epoch_that_is_kept_is_the_best_under_the_metric(tasks):
    (views, labels), (valid, truth) = rows(300, 0), rows(200, 1)
    heard = Heard()
    trained = train_head(
        build_fusion("concat", SHAPES),
        *(views, labels, tasks),
        valid_views=valid,
        valid_labels=truth,
        config=HeadConfig(epochs=12, patience=4, widths=(16,)),
        reporter=heard,
    )
    best = max(step["valid_accuracy"] for step in heard.steps)
    assert trained.metrics["valid_accuracy"] == best
    if tasks[0].metric == "log_loss":
        assert best < 0  # the negative of a loss


def test_a_focal_loss_of_nought_is_torchs_loss():
    said, truth = logits_and_truth(1)
    for kind, logits, name in (("single", said[0], "topic"), ("multi", said[1], "tags")):
        task = TOPIC if kind == "single" else TAGS
        for weighted in (False, True):
            weights = class_weights(task, truth[name]) if weighted else None
            config = HeadConfig(class_weights=weighted, label_smoothing=0.1)
            [plain] = loss_modules([task], truth, config)
            focal = FocalLoss(0.0, kind, weights, smoothing=0.1)
            assert focal(logits, truth[name]).item() == pytest.approx(
                plain(logits, truth[name]).item(), rel=1e-5
            )


def test_a_focal_loss_by_hand():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]))
    truth = torch.tensor([0, 2])
    weights = torch.tensor([1.0, 1.0, 3.0])
    terms = [0.3**2 * -np.log(0.7), 0.6**2 * -np.log(0.4)]
    assert FocalLoss(2.0, "single", None)(logits, truth).item() == pytest.approx(sum(terms) / 2)
    found = FocalLoss(2.0, "single", weights)(logits, truth).item()
    assert found == pytest.approx((terms[0] + 3 * terms[1]) / 4)
    cells = torch.tensor([[0.8, 0.3]]).logit()
    found = FocalLoss(2.0, "multi", None)(cells, torch.tensor([[1.0, 0.0]])).item()
    assert found == pytest.approx((0.2**2 * -np.log(0.8) + 0.3**2 * -np.log(0.7)) / 2)
    sure = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    FocalLoss(0.5, "single", None)(sure, torch.tensor([0])).backward()
    assert torch.isfinite(sure.grad).all()  # a root has no slope at nought


def test_a_focal_fit_is_trained_alone_and_learns():
    (views, labels), (valid, truth) = rows(300, 0), rows(200, 1)
    config = HeadConfig(epochs=40, patience=None, focal=2.0, widths=(16,))
    fusion = build_fusion("concat", SHAPES)
    assert not can_be_stacked(Fit(fusion=fusion, views=views, valid_views=valid, config=config))
    assert can_be_stacked(
        Fit(fusion=fusion, views=views, valid_views=valid, config=replace(config, focal=0.0))
    )
    trained = train_head(
        fusion, views, labels, [TOPIC], valid_views=valid, valid_labels=truth, config=config
    )
    assert trained.metrics["valid_accuracy"] > (truth["topic"] == 0).mean()


def test_one_answer_to_all_is_a_collapse_only_as_it_will_be_decided():
    truth = {"topic": torch.arange(60) % 3}
    same = [torch.tensor([[1.0, 0.0, -1.0]]).repeat(60, 1)]
    same[0][:30, 2] += 1.5  # never the largest, but likelier in half of the texts
    with pytest.raises(CollapseError):
        raise_on_collapse([TOPIC], same, truth)
    raise_on_collapse([replace(TOPIC, metric="recall_at_precision_0.9")], same, truth)
    dear = ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (4.0, 4.0, 0.0))
    raise_on_collapse([replace(TOPIC, costs=dear)], same, truth)
