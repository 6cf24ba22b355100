"""Spaces: what counts as one configuration, and what a user may write."""

from __future__ import annotations

from collections import Counter

import pytest

from llmembed.errors import ConfigError
from llmembed.fusion import FUSIONS
from tune import load_sweep, ready_spaces
from tune.heads.space import Configuration, Space
from tune.space import Range

SHAPES = {"L": (5, 384), "B": (1, 384), "R": (1, 384)}


def space(**dimensions):
    changes = {"space": {"fusion": "avg", **dimensions}}
    return load_sweep("paper-grid", changes=changes).make_space(SHAPES)


def test_the_papers_grid_is_28_of_which_23_are_the_papers():
    grid = load_sweep("paper-grid").make_space(SHAPES).grid()
    counts = Counter(c.fusion for c in grid)
    assert set(counts) == set(FUSIONS) and len(FUSIONS) == 16
    assert len(grid) == len({c.id for c in grid}) == 28
    assert sum(n for name, n in counts.items() if name != "co_avg_cat") == 23
    with_sigma = {c.fusion for c in grid if c.sigma is not None}
    assert with_sigma == {"co", "co_avg", "co_avg_cat"}
    assert all(counts[name] == (5 if name in with_sigma else 1) for name in counts)


def test_what_does_not_matter_makes_no_second_configuration():
    assert len(space(sigma=[0.1, 0.5], width=[None, 8, 384]).grid()) == 1
    assert len(space(fusion="co", width=[None, 384]).grid()) == 1
    assert len(space(fusion="co", width=[None, 8], align=["relu", "linear"]).grid()) == 3
    assert len(space(head=["linear", "mlp"], widths=[[8], [16]], dropout=[0.1, 0.2]).grid()) == 5
    assert len(space(fusion=["last", "avg", "max", "concat"], depths=["1"]).grid()) == 1
    assert len(space(fusion=["last"], depths=["1", "1-3", "1-5"]).grid()) == 1
    assert len(space(fusion=["avg"], extras=[["B"], ["R"], ["B", "R"]]).grid()) == 1
    assert len(space(fusion=["co"], extras=[["B"], ["R"], ["B", "R"]]).grid()) == 3


def test_a_view_that_does_not_enter_leaves_its_fusions_out():
    grid = space(fusion=["avg_b", "avg_r"], extras=[["B"]]).grid()
    assert [c.fusion for c in grid] == ["avg_b"]
    with pytest.raises(ConfigError, match="no configuration fits"):
        space(fusion=["avg_b"], extras=[["R"]]).grid()


def test_random_draws_are_distinct_seeded_and_inside():
    wide = load_sweep("wide").make_space(SHAPES)
    drawn = wide.random(50, seed=3)
    assert len({c.id for c in drawn}) == 50
    assert drawn == wide.random(50, seed=3) != wide.random(50, seed=4)
    for c in drawn:
        assert 3e-4 <= c.learning_rate <= 1e-2
        assert (c.sigma is None) == (FUSIONS[c.fusion].stacked is None)
        assert c.sigma is None or 0.05 <= c.sigma <= 1.0
        assert (c.widths is None) == (c.head == "linear")
    assert len(space(fusion=["avg", "max"]).random(50, seed=0)) == 2


def test_log_ranges_are_even_in_the_logarithm():
    assert Range(low=0.1, high=10, log=True, steps=3).grid("x") == [0.1, 1.0, 10.0]
    assert Range(low=8, high=12, steps=3, whole=True).grid("x") == [8, 10, 12]
    low = sum(Range(low=1e-4, high=1e-2, log=True).at(i / 99) < 1e-3 for i in range(100))
    assert low == 50


def test_configurations_survive_json():
    for c in load_sweep("wide").make_space(SHAPES).random(20, seed=0):
        again = Configuration.from_json(c.to_json())
        assert again == c and again.id == c.id


def test_ready_spaces_are_valid():
    assert {"paper-grid", "wide"} <= set(ready_spaces())
    for name in ready_spaces():
        sweep = load_sweep(name)
        if sweep.method is not None:
            continue  # see test_training_spaces
        made = sweep.make_space(SHAPES)
        for c in made.random(10, seed=1):
            assert sweep.fused(c).fusion == c.fusion


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["space.fusio=avg"], "unknown dimension 'fusio'; known are .*did you mean 'fusion'"),
        (["space.fusion=average"], "unknown name 'average'.*did you mean"),
        (["space.sigma={low: 0.5, high: 0.1}"], "a range from 0.5 to 0.1 is empty"),
        (["space.sigma={low: 0, high: 1, log: true}"], "a log range starts above 0"),
        (["space.sigma={lo: 1}"], "sigma: unknown key 'lo'"),
        (["space.sigma=-1"], "sigma: expected a number above 0"),
        (["space.learning_rate=fast"], "learning_rate: expected a number, got 'fast'"),
        (["space.dropout=[0.1, 1.5]"], "dropout is 1.5"),
        (["space.head=forest"], "unknown head 'forest'"),
        (["space.depths=[5-1]"], "the range 5-1 is empty"),
        (["search.algoritm=grid"], "search.algoritm: unknown key; known are .*algorithm"),
        (["search.trials=0"], "search.trials: .*greater than or equal to 1"),
        (["heads.epochs=3"], "heads: unknown key.*did you mean 'head'"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(overrides, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_sweep("paper-grid", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_unknown_views_and_missing_steps_are_named():
    with pytest.raises(ConfigError, match="no view 'Q'"):
        space(extras=[["Q"]])
    with pytest.raises(ConfigError, match="needs `steps`"):
        space(learning_rate={"low": 0.001, "high": 0.1}).grid()


def test_more_than_one_choice_of_primary_view():
    shapes = {**SHAPES, "M": (5, 384)}
    changes = {"space": {"fusion": "avg", "primary": ["L", "M"]}}
    grid = load_sweep("paper-grid", changes=changes).make_space(shapes).grid()
    assert [c.primary for c in grid] == ["L", "M"]
    assert isinstance(load_sweep("paper-grid").make_space(shapes), Space)
