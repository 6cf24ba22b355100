"""Methods in closed form, terms alone and an ensemble race beside the others, and the best of them
is registered, loaded and answers."""

from __future__ import annotations

import csv

import pytest

from llmembed.experiment import load_experiment
from llmembed.pipelines.compare import compare

SUBJECTS = {
    "oil": ["the oil price", "supply talks", "the refinery", "crude exports"],
    "grain": ["grain exports", "the wheat harvest", "corn silos", "a dry season"],
    "banks": ["the bank rate", "rates cut", "lending", "the currency"],
}
OF = ["lexical", "ngrams", "probe", "kernel", "concat_b_r"]
ENSEMBLE = {"kind": "ensemble", "how": "mean", "of": OF}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("together")
    with (folder / "news.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(180):
            topic = list(SUBJECTS)[row % 3]
            writer.writerow([f"{SUBJECTS[topic][row // 3 % 4]} in week {row}", topic])
    return load_experiment(
        "compare",
        changes={
            "data.source": str(folder / "news.csv"),
            "backbones.encoder.model": str(tiny_bert),
            "views": {"L": "encoder mean:1-2", "B": "encoder pooler", "R": "encoder cls:1"},
            "methods.concat_b_r.head": {"epochs": 4, "precision": "fp32"},
            "methods.ensemble": ENSEMBLE,
            "runtime": {"files": str(folder / "files"), "local": True},
            "seeds": 2,
        },
        only=["ensemble"],
    )


@pytest.fixture(scope="module")
def compared(experiment):
    return compare(experiment)


def test_every_member_has_a_row_and_the_ensemble_one_of_its_own(compared):
    rows = {row.label: row for row in compared.leaderboard.rows}
    assert set(rows) == {"ensemble", *OF}
    assert all(row.status == "ok" for row in rows.values()), rows
    assert rows["concat_b_r"].seeds == 2
    assert any("the mean of its 2 seeds" in note for note in rows["concat_b_r"].notes)
    # Each bears the pass over the texts; the ensemble bears it once.
    assert rows["ensemble"].tokens == rows["kernel"].tokens > rows["ngrams"].tokens == 0
    assert rows["ensemble"].core_seconds > rows["kernel"].core_seconds
    results = compared.leaderboard.results
    assert {result.folds for result in results} == {5}
    board = compared.leaderboard
    assert {each.label for each in board.comparisons} == set(rows) - {board.winner.label}
    assert all(each.texts == 144 for each in board.comparisons), "all of train and validation"


def test_the_ensemble_alone_is_fitted_registered_and_loaded(experiment, tmp_path):
    from llmembed.methods import load
    from llmembed.pipelines.compare import fit

    saved = tmp_path / "saved"
    found = fit(experiment, method="ensemble", save=str(saved))
    assert [row.label for row in found.leaderboard.rows] == ["ensemble"]
    assert found.registered.method == "ensemble"
    answers = load(saved).predict(["the oil price in week 7", "grain exports in week 9"])
    classes = load(saved).tasks[0].classes
    assert [classes[n] for n in answers["label"].labels] == ["oil", "grain"]
