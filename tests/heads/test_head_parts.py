from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from llmembed.contract import Task
from llmembed.errors import ConfigError
from llmembed.fusion import build_fusion
from llmembed.heads import HEADS, HeadConfig
from llmembed.heads.calibration import fit_temperature
from llmembed.heads.memory import _allowed, free_bytes
from llmembed.heads.modules import Dropout, FusedHeads, Scaler, build_head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tree"}, "unknown head 'tree': expected one of mlp, linear"),
        ({"inputs": "whitened"}, "inputs is 'whitened'"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"batch": 0}, "batch is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"widths": (16, 0)}, "widths are"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        HeadConfig(**change)


def test_settings_survive_json():
    config = HeadConfig(widths=[64, 32], seed=5, patience=None)
    assert HeadConfig.from_json(config.to_json()) == config
    assert config.widths == (64, 32)


def test_the_papers_head():
    config = HeadConfig.paper()
    layers = list(build_head(config, 384, 8).children())
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(x.in_features, x.out_features) for x in linears] == [
        (384, 1024),
        (1024, 256),
        (256, 8),
    ]
    assert [type(layer).__name__ for layer in layers[:3]] == ["Linear", "ReLU", "Dropout"]
    assert (config.learning_rate, config.batch, config.epochs) == (1e-4, 1024, 100)
    assert (config.weight_decay, config.inputs, config.patience) == (0.0, "none", None)
    assert HeadConfig.paper(epochs=50).epochs == 50


def test_small_training_sets_get_smaller_batches():
    config = HeadConfig(batch=128, least_steps=32)
    assert [config.batch_for(count) for count in (10, 640, 100_000)] == [16, 20, 128]
    assert HeadConfig.paper().batch_for(10) == 1024


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_gives_one_logit_per_class(kind):
    head = build_head(HeadConfig(kind=kind), 10, 3)
    assert head(torch.zeros(2, 10)).shape == (2, 3)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_drops_the_share(probability):
    torch.manual_seed(0)
    dropout = Dropout(probability)
    x = torch.ones(1000, 101, requires_grad=True)
    out = dropout(x)
    assert (out == 0).float().mean().item() == pytest.approx(probability, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)
    # neighbours share a draw of 64 bits: they must still be independent
    dropped = (out.detach() == 0).float().flatten()[: 8 * 12000].view(-1, 8)
    assert torch.corrcoef(dropped.T).fill_diagonal_(0).abs().max() < 0.04
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_of_nearly_everything_is_still_dropout():
    dropout = Dropout(0.999).train()
    out = dropout(torch.ones(4000, 8))
    assert bool(out.isfinite().all())
    assert 0 < (out != 0).float().mean().item() < 0.01


GROUPS = {
    "2": ("0::/a/b\n", "a", "memory.max", "memory.current"),
    "1": ("9:cpu:/\n5:memory:/a/b\n", "memory/a", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


@pytest.mark.parametrize("version", GROUPS)
def test_a_control_group_bounds_the_memory(version, tmp_path):
    line, folder, limit, usage = GROUPS[version]
    own = tmp_path / "self"
    own.write_text(line)
    for place, most in ((tmp_path / folder, "1000"), (tmp_path / folder / "b", "max")):
        place.mkdir(parents=True)
        (place / limit).write_text(most)
        (place / usage).write_text("700")
        (place / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert _allowed(own, tmp_path) == [500]
    assert _allowed(tmp_path / "none", tmp_path) == []
    assert 0 < free_bytes(torch.device("cpu")) < 2**50


def test_a_fusions_dropout_is_replaced_by_the_quick_one():
    fusion = build_fusion("co", {"L": (2, 8), "B": (1, 4)}, dropout=0.3)
    task = Task(name="t", classes=("a", "b"))
    model = FusedHeads(fusion, [task], HeadConfig(dropout=0.0)).train()
    assert isinstance(model.fusion.drop, Dropout)
    assert model.fusion.drop.p == 0.3
    views = {"L": torch.randn(4, 2, 8), "B": torch.randn(4, 1, 4)}
    assert not torch.equal(model(views)[0], model(views)[0])
    model.eval()
    assert torch.equal(model(views)[0], model(views)[0])


def test_the_scaler_equals_numpy_even_far_from_zero():
    x = np.random.default_rng(0).normal(1000, 0.01, size=(500, 2, 3)).astype(np.float32)
    x[:, 1, 2] = 7.0
    scaler = Scaler(2, 3)
    scaler.fit(torch.from_numpy(x[start : start + 64]) for start in range(0, 500, 64))
    expected = (x - x.astype(np.float64).mean(0)) / x.astype(np.float64).std(0).clip(1e-12)
    got = scaler(torch.from_numpy(x)).numpy()
    varying = np.ones((2, 3), bool)
    varying[1, 2] = False
    np.testing.assert_allclose(got[:, varying], expected[:, varying], atol=0.02)
    np.testing.assert_allclose(got[:, 1, 2], 0, atol=1e-5)


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_applied_is_found(kind, temperature):
    torch.manual_seed(0)
    logits = torch.randn(20_000, 4) * 2
    truth = (
        torch.multinomial(logits.softmax(1), 1)[:, 0]
        if kind == "single"
        else torch.bernoulli(logits.sigmoid())
    )
    found = fit_temperature((logits * temperature).numpy(), truth.numpy(), kind)
    assert found == pytest.approx(temperature, rel=0.05)


def test_the_temperature_stays_bounded_when_every_answer_is_right():
    truth = np.arange(4).repeat(5)
    assert fit_temperature(np.eye(4)[truth] * 3, truth, "single") == pytest.approx(0.25, rel=0.01)
