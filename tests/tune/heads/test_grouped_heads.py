"""Many heads side by side do what each does alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmembed.contract import Task
from llmembed.errors import CollapseError, ConfigError
from llmembed.fusion import build_fusion
from llmembed.fusion.grouped import stack, stacking_key
from llmembed.heads import HeadConfig
from llmembed.heads.shared import Fit, shape_key
from llmembed.heads.training import train_grouped, train_head

TOPIC = Task(name="topic", classes=("a", "b", "c"))
TAGS = Task(name="tags", classes=("x", "y"), kind="multi")


def make(count: int, seed: int):
    """Views L (N, 3, 8), B and R (N, 1, 8), W (N, 1, 6), and labels that follow from them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(3, 6, 8)) * 1.5
    topic = rng.integers(0, 3, count)
    rows = centres[topic] + rng.normal(size=(count, 6, 8))
    views = {
        "L": rows[:, :3],
        "B": rows[:, 3:4] * 3 + 2,
        "R": rows[:, 4:5],
        "W": rows[:, 5:6, :6],
    }
    tags = np.stack([topic == 0, rows[:, 0, 0] > 0], axis=1)
    views = {name: np.ascontiguousarray(view, np.float32) for name, view in views.items()}
    return views, {"topic": topic.astype(np.int64), "tags": tags}


TRAIN, LABELS = make(160, 0)
VALID, VALID_LABELS = make(80, 1)
EXACT = {"precision": "fp32", "dropout": 0.0, "batch": 32, "least_steps": 1, "epochs": 12}


def make_fit(fusion: str, config: HeadConfig, *, sigma=0.2, width=None, views=("L", "B", "R")):
    shapes = {name: TRAIN[name].shape[1:] for name in views}
    module = build_fusion(fusion, shapes, sigma=sigma, width=width, dropout=0.0)
    return Fit(
        fusion=module,
        views=TRAIN,
        valid_views=VALID,
        config=config,
        stacking=stacking_key(module),
    )


def alone(fusion: str, config: HeadConfig, tasks, **settings):
    fit = make_fit(fusion, config, **settings)
    return train_head(
        fit.fusion,
        TRAIN,
        LABELS,
        tasks,
        valid_views=VALID,
        valid_labels=VALID_LABELS,
        config=config,
        device="cpu",
    )


def together(fits, tasks, **options):
    return train_grouped(
        fits, LABELS, tasks, valid_labels=VALID_LABELS, device="cpu", stack=stack, **options
    )


CASES = {
    "fusions, seeds, rates": [
        ("avg", {"seed": 0}, {}),
        ("last", {"seed": 1, "learning_rate": 3e-3}, {}),
        ("max", {"seed": 0, "weight_decay": 0.1, "class_weights": True}, {}),
        ("avg", {"seed": 2, "label_smoothing": 0.1}, {}),
    ],
    "sigma without maps": [("co_avg", {"seed": s}, {"sigma": g}) for s in (0, 1) for g in (0.1, 2)],
    "sigma with maps": [
        ("co_avg_cat", {"seed": s, "learning_rate": 1e-2}, {"sigma": g, "width": 4})
        for s in (0, 1)
        for g in (0.1, 2)
    ],
    "maps of unlike views": [
        ("co", {"seed": s}, {"sigma": 0.5, "views": ("L", "B", "W")}) for s in (0, 3)
    ],
    "linear": [("avg_b_r", {"seed": s, "kind": "linear"}, {}) for s in (0, 1)],
    "deep, early stop": [
        (
            "avg_b",
            {"seed": s, "widths": (16, 8), "patience": 1, "learning_rate": 1e-2, "epochs": 30},
            {},
        )
        for s in range(4)
    ],
    "inputs as they are": [("avg_r", {"seed": s, "inputs": "none"}, {}) for s in (0, 1)],
    "no early stop": [("avg", {"seed": s, "patience": None}, {}) for s in (0, 1)],
}


@pytest.mark.parametrize("case", CASES)
def test_grouped_equals_alone(case):
    """fp32 and no dropout: the same draws, so the same weights but for rounding."""
    tasks = [TOPIC, TAGS]
    configs = [HeadConfig(**{**EXACT, **own}) for _, own, _ in CASES[case]]
    fits = [
        make_fit(fusion, config, **settings)
        for (fusion, _, settings), config in zip(CASES[case], configs, strict=True)
    ]
    heads = together(fits, tasks)
    for (fusion, _, settings), config, head in zip(CASES[case], configs, heads, strict=True):
        expected = alone(fusion, config, tasks, **settings)
        assert head.epochs == expected.epochs
        for task in tasks:
            np.testing.assert_allclose(
                head.logits(VALID)[task.name], expected.logits(VALID)[task.name], atol=2e-3
            )
        assert head.metrics["valid_loss"] == pytest.approx(expected.metrics["valid_loss"], abs=1e-3)
        assert head.parameters_trained == expected.parameters_trained


def test_seeds_of_a_group_differ_and_are_repeatable():
    configs = [HeadConfig(**{**EXACT, "dropout": 0.5, "seed": seed}) for seed in (0, 1)]
    first, second, again = (
        together([make_fit("avg", c) for c in own], [TOPIC])
        for own in (configs[:1], configs[1:], configs[:1])
    )
    logits = [head.logits(VALID)["topic"] for [head] in (first, second, again)]
    assert np.abs(logits[0] - logits[1]).max() > 0.01
    np.testing.assert_array_equal(logits[0], logits[2])


def test_dropout_drops_the_share_it_says():
    from llmembed.heads.stacked import DropoutDraws

    cuts = torch.tensor([64, 64, 64, 128, 0], dtype=torch.uint8)
    draws = DropoutDraws([0, 1, 0, 0, 1], cuts, torch.float32)
    [masks] = draws.draw(128, [64])
    assert masks.shape == (5, 128, 64)
    assert torch.equal(masks[0], masks[2]) and not torch.equal(masks[0], masks[1])
    assert abs((masks[:3] == 0).float().mean().item() - 0.25) < 0.02
    assert bool((masks[0][masks[3] > 0] > 0).all()), "of one draw more is dropped"
    assert masks.amax((1, 2)).tolist() == pytest.approx([4 / 3, 4 / 3, 4 / 3, 2, 1])
    draws.keep(torch.tensor([3]))
    [alone] = draws.draw(128, [64])
    assert alone.shape == (1, 128, 64) and set(alone.unique().tolist()) == {0, 2}


def test_a_failing_fit_leaves_the_others_alone():
    configs = [HeadConfig(**{**EXACT, "seed": 0, "learning_rate": r}) for r in (1e-3, 9e2, 1e-3)]
    configs[2] = HeadConfig(**{**EXACT, "seed": 1})
    fits = [make_fit("avg", config) for config in configs]
    fits[1] = Fit(
        fusion=fits[1].fusion,
        views=TRAIN,
        valid_views=VALID,
        config=HeadConfig(**{**EXACT, "learning_rate": 999.0, "weight_decay": 999.0}),
    )
    heads = together(fits, [TOPIC])
    assert isinstance(heads[1], (ConfigError, CollapseError))
    for head, config in ((heads[0], configs[0]), (heads[2], configs[2])):
        expected = alone("avg", config, [TOPIC])
        assert head.metrics["valid_accuracy"] == expected.metrics["valid_accuracy"]


def test_epochs_are_reported_by_fit():
    heard = []
    fits = [make_fit("avg", HeadConfig(**{**EXACT, "epochs": 3, "seed": s})) for s in (0, 1)]
    together(fits, [TOPIC], on_epoch=lambda number, epoch, metrics: heard.append((epoch, number)))
    assert sorted(heard) == [(epoch, number) for epoch in (1, 2, 3) for number in (0, 1)]


def test_unlike_shapes_are_unlike_groups():
    same = [make_fit(f, HeadConfig(**EXACT)) for f in ("last", "avg", "max")]
    assert len({shape_key(fit, 160) for fit in same}) == 1
    wider = make_fit("avg_b", HeadConfig(**EXACT))
    other_head = make_fit("avg", HeadConfig(**{**EXACT, "widths": (7,)}))
    maps = make_fit("co_avg", HeadConfig(**EXACT), width=4)
    keys = {shape_key(fit, 160) for fit in (same[0], wider, other_head, maps)}
    assert len(keys) == 4
