"""``metric`` and ``costs``, from the experiment to leaderboard, classifier and registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmembed.errors import ConfigError
from llmembed.experiment import load_experiment
from llmembed.methods import load
from llmembed.pipelines.compare import compare
from llmembed.pipelines.compare.command import fit


@pytest.fixture(scope="module")
def mail(tmp_path_factory) -> Path:
    """Spam is rare, and most of what says `prize` is none."""
    rng = np.random.default_rng(0)
    prize = rng.random(600) < 0.25
    spam = prize & (rng.random(600) < 0.4)
    path = tmp_path_factory.mktemp("data") / "mail.csv"
    about, folder = np.where(prize, "prize", "lunch"), np.where(spam, "spam", "ham")
    lines = [f"letter {i} about a {about[i]} and so on,{folder[i]}" for i in range(600)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def experiment(mail: Path, files: Path, *overrides: str):
    return load_experiment(
        "compare",
        changes={"data.source": str(mail), "runtime.files": str(files), "runtime.local": True},
        overrides=[*overrides],
        only=["lexical"],
    )


def test_what_is_optimised_is_what_is_shown_saved_and_compared(mail: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    dear = "costs={label: {spam: {ham: 10}}}"
    done = fit(experiment(mail, files, dear), save=str(tmp_path / "saved"))
    [result] = done.leaderboard.results
    assert result.valid["label"].primary == "cost"
    assert result.valid_value() == -result.valid["label"].metrics["cost"] < 0
    assert result.intervals["label"].low <= result.test["label"].value < 0
    assert "-cost" in done.leaderboard.to_markdown()
    assert done.registered is not None and done.registered.alias == "champion"
    assert done.registered.metric is not None and done.registered.metric.startswith("label cost (")
    # Of what says `prize` 4 in 10 are spam: costs of 10 make all of it spam, accuracy none.
    said = load(tmp_path / "saved").predict(["a letter about a prize and so on"])["label"]
    [task] = load(tmp_path / "saved").tasks
    assert task.classes[int(said.labels[0])] == "spam" != task.classes[int(said.scores.argmax())]
    # Without weights the rare class is never answered, which counts as a fit of no use.
    weights = "methods.lexical.class_weights=true"
    other = compare(experiment(mail, files, "metric=balanced_accuracy", weights))
    assert other.registered is not None and other.registered.alias == "challenger"
    assert "chosen by label cost (" in other.registered.reason
    assert other.registered.reason.endswith("so the scores can't be compared")
    with pytest.raises(ConfigError, match="'label' of kind 'single', which can be judged by accur"):
        compare(experiment(mail, files, "metric=slot_f1"))
