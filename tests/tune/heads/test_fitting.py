"""Fits of a sweep in this process: what trials do, without Ray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from llmembed.contract import Task
from llmembed.fusion import FUSIONS, FusionSpec
from llmembed.fusion.base import Fusion
from tune import load_sweep
from tune.board import Standing, pareto, standings
from tune.heads.data import SharedData
from tune.heads.fits import fit_alone, fit_grouped, grouped
from tune.heads.space import Configuration
from tune.ledger import Ledger, Planned, Record
from tune.trials import told_of_failed

MEASURED = ("seconds", "energy_joules", "latency_seconds")
HEAD = {"widths": [8], "epochs": 5, "patience": None, "precision": "fp32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> SharedData:
    """200 texts of two topics; R holds two depths, a pooler and a first token."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 2, 200)
    rows = rng.normal(size=(200, 4, 12)) + topic[:, None, None] * 0.8
    path = tmp_path_factory.mktemp("arrays") / "vectors.npy"
    np.save(path, rows.astype(np.float16))
    return SharedData(
        tasks=(Task(name="topic", classes=("a", "b")),),
        arrays={"f": str(path)},
        views={"L": ("f", (0, 1)), "B": ("f", (2,)), "R": ("f", (3,))},
        shapes={"L": (2, 12), "B": (1, 12), "R": (1, 12)},
        train_rows=150,
        labels={"topic": topic[:150]},
        valid_labels={"topic": topic[150:]},
    )


def sweep(**space):
    return load_sweep("paper-grid", changes={"space": {"fusion": "avg", **space}, "head": HEAD})


class Heard:
    def report(self, metrics, *, step):
        pass


def planned_of(made, data, seeds=2) -> list[Planned]:
    grid = made.make_space(data.shapes).grid()
    return [Planned(configuration=c, seed=s) for c in grid for s in range(seeds)]


def test_views_are_mapped_not_copied_and_cut_as_asked(data):
    whole = Configuration(fusion="avg", extras=("B",))
    train, valid = data.read(whole)
    assert train["L"].shape == (150, 2, 12) and valid["B"].shape == (50, 1, 12)
    assert isinstance(train["L"].base, np.memmap) or isinstance(train["L"], np.memmap)
    assert data.read(whole)[0]["L"] is train["L"]
    second, _ = data.read(Configuration(fusion="avg", depths=(2,)))
    np.testing.assert_array_equal(second["L"][:, 0], train["L"][:, 1])


def test_groups_hold_equal_shapes_within_the_limit(data):
    made = sweep(fusion=["last", "avg", "max", "co"], sigma=[0.1, 0.5], widths=[[8], [9]])
    planned = planned_of(made, data)
    groups = grouped(planned, data, made.head_of, most_bytes=None)
    assert sorted(len(group) for group in groups) == [4, 4, 6, 6]
    assert sorted(p.id for group in groups for p in group) == sorted(p.id for p in planned)
    one = grouped(planned, data, made.head_of, most_bytes=1)
    assert len(one) == len(planned)


def test_alone_and_in_groups_the_same_is_learned(data):
    made = sweep(fusion=["last", "avg"], dropout=[0.0])
    planned = planned_of(made, data)
    together = {r.planned.id: r for r in fit_grouped(planned, data, made.head_of)}
    for each in planned:
        alone = fit_alone(each, data, made.head_of(each.configuration))
        for name in ("valid_accuracy", "valid_loss", "parameters", "epochs"):
            assert together[each.id].figures[name] == pytest.approx(alone.figures[name], abs=1e-4)
        assert together[each.id].grouped and not alone.grouped
        assert together[each.id].figures["latency_seconds"] > 0


class Mapped(Fusion):
    """The last depth through a map of its own; there is no twin of it to train side by side."""

    def __init__(self, name, spec, shapes, **settings):
        super().__init__(name, spec, shapes, {})
        self.map = nn.Linear(self.shapes["L"][1], 4)
        self.features = 4

    def fuse(self, views):
        return [torch.tanh(self.map(views["L"][:, 0]))]


def test_a_fusion_without_a_twin_is_a_group_by_itself(data, monkeypatch):
    spec = FusionSpec(number=None, module=f"{__name__}:Mapped", depths="last")
    monkeypatch.setattr("llmembed.fusion.FUSIONS", {**FUSIONS, "mapped": spec})
    planned = [Planned(configuration=Configuration(fusion="mapped"), seed=s) for s in (0, 1)]
    head = {**HEAD, "learning_rate": 1e-2}
    groups = grouped(planned, data, lambda c: head, most_bytes=None)
    assert sorted(groups, key=lambda group: group[0].seed) == [[each] for each in planned]
    for [each] in groups:
        [record] = fit_grouped([each], data, lambda c: head)
        assert record.figures == {
            **fit_alone(each, data, head).figures,
            **{name: record.figures[name] for name in MEASURED},
        }
        assert record.figures["valid_accuracy"] > 0.65


def test_out_of_memory_is_a_reason_and_not_the_end(data):
    made = sweep(widths=[[10**13]])
    planned = planned_of(made, data)
    for records in (
        list(fit_grouped(planned, data, made.head_of)),
        [fit_alone(each, data, made.head_of(each.configuration)) for each in planned],
    ):
        assert [record.status for record in records] == ["failed", "failed"]
        assert all("memory" in str(record.reason) for record in records)


def record(configuration: Configuration, seed: int, accuracy: float, parameters: float) -> Record:
    figures = {"valid_accuracy": accuracy, "parameters": parameters}
    return Record(
        planned=Planned(configuration=configuration, seed=seed), status="ok", figures=figures
    )


def test_the_ledger_keeps_the_first_and_reads_back_what_it_wrote(tmp_path):
    ledger = Ledger.create(tmp_path / "one", {"sweep": {}})
    first = record(Configuration(fusion="co", sigma=0.2, extras=("B",)), 1, 0.5, 10)
    assert ledger.write(first)
    assert not ledger.write(record(first.planned.configuration, 1, 0.9, 10))
    ledger.tell_run(first, "run-1")
    [again] = Ledger.open(tmp_path / "one").records.values()
    assert again.planned == first.planned and again.figures["valid_accuracy"] == 0.5
    assert again.run == "run-1"


def test_ranking_and_front():
    sizes = {"avg": (0.90, 0.92, 10), "max": (0.95, 0.95, 30), "last": (0.80, 0.80, 20)}
    made = [
        record(Configuration(fusion=name), seed, accuracy, parameters)
        for name, (one, two, parameters) in sizes.items()
        for seed, accuracy in enumerate((one, two))
    ]
    lost = Record(
        planned=Planned(configuration=Configuration(fusion="concat"), seed=0),
        status="failed",
        reason="x",
    )
    found = standings({r.planned.id: r for r in [*made, lost]})
    assert [s.configuration.fusion for s in found] == ["max", "avg", "last"]
    assert found[1].accuracy == pytest.approx(0.91)
    assert found[1].sd == pytest.approx(0.01414, abs=1e-4)
    front: list[Standing] = pareto(found, "parameters")
    assert [s.configuration.fusion for s in front] == ["avg", "max"]


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_fits_are_worth_what_the_sweeps_metric_says(data, metric):
    """Alone and in groups, and in every epoch."""
    made = load_sweep(
        "paper-grid",
        changes={"space": {"fusion": "avg", "dropout": 0.0}, "head": HEAD, "metric": metric},
    )
    assert made.experiment({"m": made.fused(Configuration(fusion="avg"))}).metric == metric
    assert told_of_failed(made) < -1e6 < told_of_failed(sweep()) == 0
    judged = replace(data, tasks=(replace(data.tasks[0], metric=metric),))
    planned = planned_of(made, judged)
    together = list(fit_grouped(planned, judged, made.head_of))
    for record in together:
        head = made.head_of(record.planned.configuration)
        alone = fit_alone(record.planned, judged, head, reporter=Heard())
        value = record.figures["valid_accuracy"]
        assert value == pytest.approx(alone.figures["valid_accuracy"], abs=1e-4)
        assert value == record.figures["valid_accuracy/topic"]
        assert alone.history[-1] == alone.figures["valid_accuracy"]
        if metric == "log_loss":  # the loss of one task is the metric itself
            assert value == pytest.approx(-record.figures["valid_loss"], rel=1e-4)
