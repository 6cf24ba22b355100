from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmembed.errors import ConfigError, ModelError
from llmembed.tracking import Registered, Tracking, champion, download, register

LOADER = "llmembed.tiny_keyword:load"


@pytest.fixture
def put(tracking: Tracking, tiny: Any, tmp_path: Path) -> Any:
    """Registers a new version with a score; its keyword is the score, to tell versions apart."""

    def put(score: float, **options: Any) -> Registered:
        folder = tmp_path / f"saved-{score}"
        tiny(str(score)).save(folder)
        settings: dict[str, Any] = {"metric": "accuracy", "digest": "d1", **options}
        with tracking.run(f"fit {score}") as run:
            return register(
                run,
                folder,
                name="r8",
                tasks=tiny.tasks,
                validation_score=score,
                method="keyword",
                loader=LOADER,
                **settings,
            )

    return put


def holders(tracking: Tracking) -> dict[str, int]:
    aliases = tracking.client.get_registered_model("r8").aliases
    return {alias: int(version) for alias, version in aliases.items()}


def test_the_champion_moves_only_when_the_new_one_is_better(tracking: Tracking, put: Any) -> None:
    assert champion(tracking, "r8") is None
    first = put(0.90)
    assert (first.version, first.alias) == (1, "champion")
    worse = put(0.89)
    assert (worse.alias, worse.reason) == (
        "challenger",
        "accuracy 0.8900 does not beat 0.9000 of the champion, version 1",
    )
    assert put(0.90).alias == "challenger", "as good is not better"
    assert holders(tracking) == {"champion": 1, "challenger": 3}
    better = put(0.93)
    assert holders(tracking) == {"champion": 4, "challenger": 3}
    now = champion(tracking, "r8")
    assert now is not None
    assert (now.version, now.score, now.metric, now.digest, now.method) == (
        4,
        0.93,
        "accuracy",
        "d1",
        "keyword",
    )
    assert now.run_id == better.run_id
    tags = tracking.client.get_run(better.run_id).data.tags
    assert (tags["llmembed.registered"], tags["llmembed.alias"]) == ("r8/4", "champion")
    description = tracking.client.get_model_version("r8", "4").description
    assert description == f"champion: {better.reason}"


@pytest.mark.parametrize(
    ("options", "why"),
    [({"digest": "d2"}, "other data"), ({"metric": "macro_f1"}, "chosen by accuracy")],
)
def test_scores_that_do_not_compare_leave_the_champion(
    tracking: Tracking, put: Any, options: dict[str, str], why: str
) -> None:
    put(0.90)
    other = put(0.99, **options)
    assert other.alias == "challenger"
    assert why in other.reason
    assert holders(tracking) == {"champion": 1, "challenger": 2}
    forced = put(0.5, **options, force=True)
    assert forced.alias == "champion"
    assert holders(tracking) == {"champion": 3, "challenger": 2}


def test_less_can_be_better_and_nan_never_is(tracking: Tracking, put: Any) -> None:
    assert put(math.nan, metric="loss").alias == "challenger"
    assert put(0.4, metric="loss", higher_is_better=False).alias == "champion"
    assert put(0.3, metric="loss", higher_is_better=False).alias == "champion"
    assert put(0.5, metric="loss", higher_is_better=False).alias == "challenger"
    assert put(math.nan, metric="loss", higher_is_better=False).alias == "challenger"
    assert holders(tracking)["champion"] == 3


def test_a_champion_set_by_hand_without_score_is_kept(tracking: Tracking, put: Any) -> None:
    put(0.90)
    put(0.80)
    tracking.client.delete_model_version_tag("r8", "2", "llmembed.validation_score")
    tracking.client.set_registered_model_alias("r8", "champion", "2")
    new = put(0.95)
    assert new.alias == "challenger"
    assert "no validation score" in new.reason


def test_downloads_by_alias_and_version(tracking: Tracking, put: Any, tmp_path: Path) -> None:
    put(0.90)
    put(0.95)
    put(0.85)
    for uri, word in (
        ("models:/r8@champion", "0.95"),
        ("models:/r8@challenger", "0.85"),
        ("models:/r8/1", "0.9"),
    ):
        folder = download(tracking, uri)
        assert json.loads((folder / "keyword.json").read_text())["word"] == word
    for uri in ("models:/r8@winner", "models:/none@champion", "models:/r8/77", "models:/m-123"):
        with pytest.raises(ModelError, match="can't be had"):
            download(tracking, uri)
    with pytest.raises(ModelError, match="models:/NAME@ALIAS"):
        download(tracking, "runs:/abc/model")


def test_names_mlflow_refuses(tracking: Tracking, tiny: Any, tmp_path: Path) -> None:
    with tracking.run("fit") as run, pytest.raises(ConfigError, match="'a/b'"):
        register(
            run,
            tmp_path,
            name="a/b",
            tasks=tiny.tasks,
            validation_score=1.0,
            metric="accuracy",
            digest="d",
        )


RACER = """
import sys
from pathlib import Path
import llmembed
llmembed.__path__ = [*llmembed.__path__, sys.argv[2]]
from llmembed.tiny_keyword import Keyword
from llmembed.tracking import Tracking, pyfunc, register
pyfunc.LOADERS = (*pyfunc.LOADERS, "llmembed.tiny_keyword:load")
tracking = Tracking(experiment="r8", files=sys.argv[1])
for score in map(float, sys.argv[4:]):
    folder = Path(sys.argv[3]) / str(score)
    Keyword("x").save(folder)
    with tracking.run("fit") as run:
        register(run, folder, name="r8", tasks=Keyword.tasks, validation_score=score,
                 metric="accuracy", digest="d1", loader="llmembed.tiny_keyword:load")
"""


@pytest.mark.slow
def test_of_registrations_at_once_the_best_is_champion(
    tracking: Tracking, files: Path, tiny: Any, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", RACER, str(files), str(tmp_path / "plugin"), str(tmp_path)]
    racers = [subprocess.Popen([*command, *scores]) for scores in (("0.9", "0.7"), ("0.8", "0.85"))]
    assert [racer.wait() for racer in racers] == [0, 0]
    winner = champion(tracking, "r8")
    assert winner is not None and winner.score == 0.9
    assert len(tracking.client.search_model_versions("name = 'r8'")) == 4
    names = [found.name for found in tracking.client.search_experiments()]
    assert names.count("r8") == 1, "both made, or found, the one experiment"
