"""What data sets, experiments and models are called, and places that can't be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmembed.errors import ConfigError
from llmembed.experiment import TrackingSettings
from llmembed.pipelines.corpus import changed_names, plain_name
from llmembed.pipelines.runtime import make_runtime
from llmembed.texts import Columns, CorpusSource
from llmembed.texts.naming import part_named


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("reviews/train.csv", "reviews"),
        ("mails/train.csv", "mails"),
        ("reviews/data/part-0.csv.gz", "reviews"),
        ("reviews/splits/train/0001.parquet", "reviews"),
        ("reviews/", "reviews"),
        ("reviews/*.csv", "reviews"),
        ("reviews/**/train-*.csv", "reviews"),
        ("s3://bucket/reviews/train.csv", "reviews"),
        ("s3://bucket/train.csv", "bucket"),
        ("reviews.2023.csv", "reviews-2023"),
        ("reviews.2024.CSV.GZ", "reviews-2024"),
        ("test_reviews.csv", "test_reviews"),
    ],
)
def test_a_data_set_is_called_after_what_it_is_about(
    address: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CorpusSource.files(address, columns=Columns()).name == name


def test_a_file_of_the_working_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letters").mkdir()
    monkeypatch.chdir(tmp_path / "letters")
    assert CorpusSource.files("data.csv", columns=Columns()).name == "letters"
    assert CorpusSource.files(".", columns=Columns()).name == "letters"


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", "train Training train_data X_train df-train.v2 trainset trainData"),
        ("valid", "val valid validation dev reviews_dev validation-00000-of-00002"),
        ("test", "test testing eval test1 reviews.test reviews_test_final TestData testset"),
        (None, "latest contest attest part-0 devices evaluate trainer reviews photo_of_test_tubes"),
        ("both", "train_test dev-vs-test"),
    ],
)
def test_which_part_a_name_says(part: str | None, names: str) -> None:
    assert {name: part_named(name) for name in names.split()} == dict.fromkeys(names.split(), part)


def test_a_name_keeps_all_its_words_and_what_changes_is_said() -> None:
    names = ["team_a/reviews", "team_b/reviews", "x/reviews.v2", "reviews", "a:b", "../up"]
    plain = [plain_name(name) for name in names]
    assert plain == ["team_a-reviews", "team_b-reviews", "x-reviews.v2", "reviews", "a-b", "-up"]
    said = changed_names(TrackingSettings(experiment="plain", register_as="team/reviews"))
    assert said == [
        "tracking.register_as team/reviews is kept as team-reviews: names here take letters, "
        "digits and _ . + -"
    ]


@pytest.mark.parametrize("name", ["mlartifacts", "quarantine", "leaderboards", "store"])
def test_a_file_where_a_folder_must_be_is_told_first(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=rf"--files {tmp_path}: .*{name} is a file"):
        make_runtime(files=str(tmp_path), local=True)


def test_other_places_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for files in ("file", "file/below/it"):
        with pytest.raises(ConfigError, match="file is a file; name another place"):
            make_runtime(files=str(tmp_path / files), local=True)
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(ConfigError, match=r"mlflow\.db is a folder"):
        make_runtime(files=str(tmp_path), local=True)
    make_runtime(files=str(tmp_path / "new" / "place"), local=True)
