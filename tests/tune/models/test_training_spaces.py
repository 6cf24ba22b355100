"""Spaces of models trained whole: what counts as one configuration, what a user may write."""

from __future__ import annotations

import pytest

from llmembed.errors import ConfigError
from llmembed.methods.finetuned.settings import DecoderSettings
from tune import load_sweep, ready_spaces
from tune.ledger import Planned
from tune.models.space import TrainingConfiguration


def of(name: str, *overrides: str, **space):
    changes = {"space": space} if space else {}
    return load_sweep(name, changes=changes, overrides=overrides)


def test_ready_spaces_make_methods_of_their_settings():
    assert {"encoder", "decoder-lora"} <= set(ready_spaces())
    for name in ("encoder", "decoder-lora"):
        sweep = load_sweep(name)
        for made in sweep.training_space().random(20, seed=0):
            settings = sweep.method_of(made)
            config = settings.config
            told = dict(made.settings)
            assert config.learning_rate == told["learning_rate"]
            assert config.epochs == told["epochs"]
            if isinstance(settings, DecoderSettings):
                assert config.lora is not None
                assert (config.lora.rank, config.lora.dropout) == (told["lora.rank"], 0.05)


def test_what_does_not_matter_makes_no_second_configuration():
    ranks = of("decoder-lora", **{"lora.rank": [None, 8], "lora.alpha": [16, 32]})
    grid = ranks.training_space().grid()
    assert [dict(c.settings) for c in grid] == [
        {"lora.rank": None},
        {"lora.rank": 8, "lora.alpha": 16.0},
        {"lora.rank": 8, "lora.alpha": 32.0},
    ]
    assert ranks.method_of(grid[0]).config.lora is None
    steps = of("encoder", epochs=[1, 2], max_steps=[None, 10])
    assert len(steps.training_space().grid()) == 3
    fixed = of("encoder", "method.training.max_steps=5", epochs=[1, 2], pooling=["cls", "mean"])
    assert len(fixed.training_space().grid()) == 2


def test_configurations_survive_json_and_are_told_apart():
    space = load_sweep("decoder-lora").training_space()
    drawn = space.random(20, seed=3)
    assert drawn == space.random(20, seed=3) != space.random(20, seed=4)
    assert len({c.id for c in drawn}) == 20
    for c in drawn:
        again = Planned.from_json(Planned(configuration=c, seed=1).to_json())
        assert isinstance(again.configuration, TrainingConfiguration)
        assert again.configuration == c and again.id == f"{c.id}-1"
    assert set(drawn[0].differing(drawn)) == {"lora.rank", "learning_rate", "epochs"}


@pytest.mark.parametrize(
    ("name", "overrides", "sentence"),
    [
        ("encoder", ["space.learning_rat=1"], "unknown dimension.*did you mean 'learning_rate'"),
        ("encoder", ["space.lora.rank=8"], "LoRA is for decoders"),
        ("decoder-lora", ["space.lora=8"], "of LoRA lora.rank, .* are known"),
        ("encoder", ["space.learning_rate=[fast]"], "learning_rate: expected a number, got 'fast'"),
        ("encoder", ["space.learning_rate=-1"], "learning_rate is -1"),
        ("encoder", ["space.learning_rate={low: 1}"], "a range needs low and high"),
        ("encoder", ["space.batch=[2.5]"], "batch: expected a whole number"),
        ("encoder", ["space.pooling=[max]"], "pooling: input should be 'mean' or 'cls'"),
        ("encoder", ["space.pooling={low: 1, high: 2}"], "not a range"),
        ("encoder", ["space.fusion=avg"], "unknown dimension 'fusion'"),
        ("encoder", ["method.pooling=max"], "method.pooling: "),
        ("encoder", ["method.poling=cls"], "method.poling: unknown key; known are .*'pooling'"),
        ("encoder", ["method.kind=fused"], "method: kind is 'fused': expected encoder or decoder"),
        ("encoder", ["method.training.epoch=1"], "unknown key 'epoch'.*did you mean 'epochs'"),
        ("encoder", ["head.epochs=3"], "head is for searches over fusions"),
        ("paper-grid", ["method={kind: encoder}"], "unknown dimension 'fusion'"),
        ("encoder", ["space={}"], "names no dimension"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(name, overrides, sentence):
    if any(word.startswith("space.lora") for word in overrides):
        key, _, value = overrides[0].partition("=")
        load = {"changes": {"space": {key.removeprefix("space."): int(value)}}}
    else:
        load = {"overrides": overrides}
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_sweep(name, **load)
    assert "\n" not in str(caught.value)


def test_models_are_not_trained_side_by_side():
    with pytest.raises(ConfigError, match="whole models are trained one by one"):
        _ = load_sweep("encoder", overrides=["search.grouped=true"]).trains_groups
    assert not load_sweep("encoder").trains_groups
