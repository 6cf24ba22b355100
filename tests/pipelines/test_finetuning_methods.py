"""From a recipe's words to the methods that train a whole model."""

from __future__ import annotations

import pytest

from llmembed.errors import ConfigError
from llmembed.experiment import load_experiment
from llmembed.methods.finetuned.decoder import Decoder
from llmembed.methods.finetuned.encoder import Encoder
from llmembed.methods.finetuned.separate import Separate
from llmembed.pipelines.methods import Assembler


def method(recipe: str, name: str, *overrides: str):
    return Assembler(load_experiment(recipe, overrides=overrides)).method(name)


def test_an_encoder_as_the_paper_sets_it():
    made = method("finetune-multitask", "roberta-base")
    assert isinstance(made, Encoder)
    assert (made.name, made.pooling) == ("roberta-base", "cls")
    training = made.seeded(4).training
    assert (training.learning_rate, training.epochs, training.batch) == (1e-5, 20.0, 32)
    assert training.seed == 4
    changed = method(
        "finetune-multitask", "roberta-base", "methods.roberta-base.training.epochs=10"
    )
    assert changed.training.epochs == 10


def test_dual_is_a_model_for_each_task():
    made = method("consolidate", "dual")
    assert isinstance(made, Separate)
    assert made.name == "dual"
    assert made.seeded(2).each.training.seed == 2
    assert made.each.training == method("consolidate", "consolidated").training
    assert made.settings["separate"]


def test_a_decoder_knows_its_benchmark_and_how_it_is_spread():
    made = method(
        "finetune-tiny-cpu", "decoder", "methods.decoder.training.lora={rank: 4, alpha: 8}"
    )
    assert isinstance(made, Decoder)
    assert (made.benchmark, made.spread.workers, made.spread.zero) == ("massive-en", 2, 2)
    assert made.training.lora is not None
    assert made.training.lora.rank == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("training.learnig_rate=1", ["training", "'learnig_rate'", "did you mean 'learning_rate'"]),
        ("training.schedule=step", ["training", "'step'"]),
        ("training.recipe=theirs", ["training", "unknown recipe 'theirs'"]),
        ("zero=4", ["zero"]),
        ("shots=-1", ["shots", "greater than or equal to 0"]),
        ("shots=2", ["methods.decoder", "no place for shots"]),
        ("sepparate=true", ["sepparate", "did you mean 'separate'"]),
    ],
)
def test_mistakes_are_named(words, said):
    with pytest.raises(ConfigError) as caught:
        method("finetune-tiny-cpu", "decoder", f"methods.decoder.{words}")
    for part in said:
        assert part in str(caught.value)
