"""What an experiment may say, and the sentences that answer mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llmembed.errors import ConfigError
from llmembed.experiment import load_experiment, recipes
from llmembed.heads.settings import head_config


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_valid_and_says_what_it_is(name):
    experiment = load_experiment(name)
    assert experiment.description
    assert experiment.methods


def test_every_fusion_has_its_line_in_the_recipe_of_all_fusions():
    from llmembed.fusion import FUSIONS

    fused = [m.fusion for m in load_experiment("fusions").methods.values() if m.kind == "fused"]
    assert fused == list(FUSIONS)


def test_options_and_dotted_words_change_settings_and_the_last_word_wins():
    experiment = load_experiment(
        "fusions",
        changes={"seeds": 2, "data.source": ["a.csv"]},
        overrides=["seeds=5", "methods.co_avg.sigma=0.4", "data.labels={topic: kind}"],
        only=["co_avg", "probe"],
    )
    assert experiment.seeds == 5
    assert experiment.methods["co_avg"].sigma == 0.4
    assert experiment.data.source == ["a.csv"]
    assert experiment.data.labels == {"topic": "kind"}
    assert list(experiment.methods) == ["co_avg", "probe"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sedes=3"], ["sedes", "unknown key", "did you mean 'seeds'"]),
        (["data.limt=30"], ["data.limt", "unknown key", "did you mean 'limit'"]),
        (["methods.avg.fusoin=max"], ["methods.avg.fusoin", "did you mean 'fusion'"]),
        (["methods.avg.fusion=avgg"], ["methods.avg.fusion", "'avgg'", "did you mean 'avg'"]),
        (["methods.avg.kind=fussed"], ["methods.avg.kind", "unknown method 'fussed'"]),
        (["methods.new.sigma=2"], ["methods.new.kind", "missing"]),
        (["methods.avg.head.lr=1"], ["methods.avg.head", "unknown key 'lr'"]),
        (["methods.avg.head.dropout=2"], ["methods.avg.head", "dropout is 2"]),
        (["seeds=none"], ["seeds", "valid integer", "'none'"]),
        (["seeds=0"], ["seeds", "greater than or equal to 1", "got 0"]),
        (["runtime.actors=many"], ["runtime.actors", "'many'"]),
        (["seeds.more=1"], ["seeds.more", "seeds is a value"]),
        (["data.seed=[1"], ["data.seed", "YAML"]),
        (
            ["backbones.encoder.model=minilm", "backbones.encoder.long_texts=fold"],
            ["backbones.encoder.long_texts", "'fold'"],
        ),
    ],
)
def test_a_mistake_gets_one_sentence_that_names_the_key(overrides, words):
    with pytest.raises(ConfigError) as caught:
        load_experiment("fusions", overrides=overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_file_that_is_missing_broken_or_no_mapping(tmp_path: Path):
    with pytest.raises(ConfigError, match="no file"):
        load_experiment(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\nb: }")
    with pytest.raises(ConfigError, match="can't be read as YAML") as caught:
        load_experiment(str(broken))
    assert "\n" not in str(caught.value)
    broken.write_text("- just\n- a list\n")
    with pytest.raises(ConfigError, match="key: value"):
        load_experiment(str(broken))
    with pytest.raises(ConfigError, match="did you mean 'compare'"):
        load_experiment("comparee")
    with pytest.raises(ConfigError, match="did you mean 'avg'"):
        load_experiment("fusions", only=["avvg"])


def test_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"methods": {"words": {"kind": "lexical"}}}))
    assert list(load_experiment(str(path)).methods) == ["words"]
    path.write_text(yaml.safe_dump({"methods": {}}))
    with pytest.raises(ConfigError, match="names no method"):
        load_experiment(str(path))


def test_the_paper_head_is_the_papers():
    assert head_config({"recipe": "paper"}).widths == (1024, 256)
    assert head_config({"recipe": "paper", "epochs": 3}).epochs == 3
    with pytest.raises(ConfigError, match="known are ours, paper"):
        head_config({"recipe": "papper"})
