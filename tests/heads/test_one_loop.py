"""One loop for every fit: alone or in a group, of our own modules or of somebody else's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmembed.contract import Task
from llmembed.fusion import FUSIONS, FusionSpec, build_fusion
from llmembed.fusion.base import Fusion
from llmembed.fusion.grouped import stack, stacking_key
from llmembed.heads import HEADS, HeadConfig
from llmembed.heads.shared import Fit, shape_key
from llmembed.heads.trained import TrainedHead
from llmembed.heads.training import train_grouped, train_head

SHAPES = {"L": (3, 8), "B": (1, 6)}
TASKS = [
    Task(name="topic", classes=("a", "b", "c")),
    Task(name="tags", classes=("x", "y"), kind="multi"),
]


class Weighed(Fusion):
    """Depths are mixed by a convolution, then mapped; nothing of it has a twin by hand."""

    def __init__(self, name, spec, shapes, **settings):
        super().__init__(name, spec, shapes, {})
        self.mix = nn.Conv1d(self.shapes["L"][0], 1, 1)
        self.map = nn.Linear(self.shapes["L"][1], 5)
        self.features = 5

    def fuse(self, views):
        return [torch.tanh(self.map(self.mix(views["L"])[:, 0]))]


class Prototypes(nn.Module):
    """A class is answered by how near its point is; the running means are buffers."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.normal = nn.BatchNorm1d(features)
        self.points = nn.Parameter(torch.randn(classes, features))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.normal(x.float()), self.points).square() / 4


def prototypes(features, classes, widths, dropout):
    return Prototypes(features, classes)


@pytest.fixture(autouse=True)
def plugged_in(monkeypatch):
    spec = FusionSpec(number=None, module=f"{__name__}:Weighed", depths="avg")
    monkeypatch.setattr("llmembed.fusion.FUSIONS", {**FUSIONS, "weighed": spec})
    monkeypatch.setitem(HEADS, "prototypes", f"{__name__}:prototypes")


def rows(count, seed, noise=1.0):
    """Views around a centre for each class; the second tag is the sign of one coordinate."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(3, 4, 8)) * 1.5
    topic = rng.integers(0, 3, count)
    made = (centres[topic] + rng.normal(size=(count, 4, 8)) * noise).astype(np.float32)
    tags = np.stack([topic == 0, made[:, 0, 0] > 0], axis=1)
    views = {"L": made[:, :3].copy(), "B": made[:, 3:, :6].copy()}
    return views, {"topic": topic.astype(np.int64), "tags": tags}


SMALL = HeadConfig(
    widths=(12,), dropout=0.2, epochs=12, patience=None, batch=16, least_steps=1, precision="fp32"
)


def config(**changes):
    return replace(SMALL, **changes)


def made(fusion, settings, train, valid):
    module = build_fusion(fusion, SHAPES, width=4)
    return Fit(
        fusion=module,
        views=train,
        valid_views=valid,
        config=settings,
        stacking=stacking_key(module),
    )


def alone(fusion, settings, train, valid, **options) -> TrainedHead:
    return train_head(
        build_fusion(fusion, SHAPES, width=4),
        train[0],
        train[1],
        TASKS,
        valid_views=valid[0],
        valid_labels=valid[1],
        config=settings,
        **{"device": "cpu", "threads": 1, **options},
    )


@pytest.mark.parametrize(
    ("fusion", "kind"), [("weighed", "mlp"), ("avg", "prototypes"), ("weighed", "prototypes")]
)
def test_modules_of_others_train_through_the_same_loop(fusion, kind, tmp_path):
    train, valid, test = rows(300, 0), rows(100, 1), rows(400, 2)
    head = alone(fusion, config(kind=kind, learning_rate=1e-2), train, valid)
    scores = head.scores(test[0])
    assert (scores["topic"].argmax(1) == test[1]["topic"]).mean() > 0.9
    streamed = alone(fusion, config(kind=kind, learning_rate=1e-2), train, valid, resident=False)
    np.testing.assert_allclose(streamed.scores(test[0])["topic"], scores["topic"], atol=0.05)
    head.save(tmp_path)
    loaded = TrainedHead.load(tmp_path, build_fusion)
    np.testing.assert_array_equal(loaded.scores(test[0])["topic"], scores["topic"])


@pytest.mark.parametrize(
    ("fusion", "kind"), [("avg", "mlp"), ("co", "mlp"), ("weighed", "prototypes")]
)
def test_a_group_of_one_is_the_single_fit(fusion, kind):
    train, valid = rows(160, 0), rows(80, 1)
    settings = config(kind=kind, epochs=4, patience=2, seed=5)
    single = alone(fusion, settings, train, valid)
    heard = []
    [grouped] = train_grouped(
        [made(fusion, settings, train[0], valid[0])],
        train[1],
        TASKS,
        valid_labels=valid[1],
        on_epoch=lambda number, epoch, metrics: heard.append((number, epoch)),
        device="cpu",
        threads=1,
        stack=stack,
    )
    assert heard == [(0, epoch) for epoch in range(1, grouped.epochs + 1)]
    assert (grouped.metrics, grouped.epochs) == (single.metrics, single.epochs)
    assert grouped.temperatures == single.temperatures
    for name, value in single.model.state_dict().items():
        assert torch.equal(grouped.model.state_dict()[name], value), name


def test_what_has_no_twin_by_hand_shares_a_group_with_nothing():
    train, valid = rows(40, 0)[0], rows(20, 1)[0]
    for fusion, kind in (("weighed", "mlp"), ("avg", "prototypes")):
        fits = [made(fusion, config(kind=kind, seed=seed), train, valid) for seed in (0, 1)]
        assert fits[0].stacking is None
        assert shape_key(fits[0], 40) != shape_key(fits[1], 40)
    maps = [made("co", config(seed=seed), train, valid) for seed in (0, 1)]
    assert shape_key(maps[0], 40) == shape_key(maps[1], 40)


def test_the_best_epochs_buffers_are_kept_with_its_weights():
    class Heard:
        def __init__(self):
            self.seen = []

        def report(self, metrics, *, step):
            self.seen.append(dict(metrics))

    heard = Heard()
    settings = config(kind="prototypes", learning_rate=0.05, patience=3, epochs=40)
    train, valid = rows(120, 0, noise=3.0), rows(80, 1, noise=3.0)
    head = alone("avg", settings, train, valid, reporter=heard)
    best = max(heard.seen, key=lambda m: (m["valid_accuracy"], -m["valid_loss"]))
    assert best is not heard.seen[-1]
    assert head.metrics["valid_loss"] == pytest.approx(best["valid_loss"], rel=1e-6)


def test_a_fusions_weights_follow_from_the_seed_whatever_layers_it_has():
    train, valid = rows(60, 0), rows(40, 1)
    first, second = (alone("weighed", config(epochs=1), train, valid).model for _ in range(2))
    for name, value in first.fusion.named_parameters():
        assert torch.equal(value, dict(second.fusion.named_parameters())[name]), name
