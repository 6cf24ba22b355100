from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmembed.cluster import LocalRuntime
from llmembed.contract import Classifier, Examples, Silent, Task
from llmembed.errors import ConfigError, DataError, ModelError
from llmembed.generation.building import build_generator
from llmembed.methods.prompted.prompt import Prompting
from llmembed.tracking import Tracking, download, log_classifier, register
from llmembed.tracking.pyfunc import answer, load_classifier, requirements

sys.path.append(str(Path(__file__).parent.parent / "generation"))
from openai_server import OpenAIServer

LOADER = "llmembed.tiny_keyword:load"
TEXTS = ["wheat exports rose", "shares fell", "corn and wheat", "?"]


@pytest.fixture
def folder(tiny: Callable[..., Classifier], tmp_path: Path) -> Path:
    tiny("wheat").save(tmp_path / "saved")
    return tmp_path / "saved"


def logged(tracking: Tracking, folder: Path, tiny: Any, **options: Any) -> Any:
    with tracking.run("fit") as run:
        return log_classifier(run, folder, tasks=tiny.tasks, loader=LOADER, **options)


FRESH = """
import json, sys
import llmembed
llmembed.__path__ = [*llmembed.__path__, sys.argv[1]]  # where the test's classifier is
import mlflow, pandas as pd
from llmembed.tracking import pyfunc
pyfunc.LOADERS += ("llmembed.tiny_keyword:load",)
model = mlflow.pyfunc.load_model(sys.argv[2])
table = pd.DataFrame({"text": json.loads(sys.argv[3])})
plain = model.predict(table)
full = model.predict(table, params={"return_scores": True})
print(json.dumps({
    "plain": plain.astype(object).where(plain.notna(), None).to_dict("list"),
    "columns": list(full.columns),
    "scores": [list(map(float, row)) for row in full["topic_scores"]],
    "signature": model.metadata.signature.to_dict(),
    "metadata": model.metadata.metadata,
}))
"""


def test_a_fresh_process_loads_the_champion_and_answers_the_same(
    tracking: Tracking, folder: Path, tiny: Any, tmp_path: Path
) -> None:
    classifier = tiny("wheat")
    with tracking.run("fit") as run:
        register(
            run,
            folder,
            name="r8",
            tasks=classifier.tasks,
            validation_score=0.9,
            metric="accuracy",
            digest="d1",
            method="keyword",
            loader=LOADER,
        )
    done = subprocess.run(
        [
            *(sys.executable, "-c", FRESH),
            *(str(tmp_path / "plugin"), "models:/r8@champion", json.dumps(TEXTS)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking.uri},
    )
    assert done.returncode == 0, done.stderr
    assert "mismatch" not in done.stderr, done.stderr
    assert "hint" not in done.stderr, done.stderr
    got = json.loads(done.stdout)
    expected = classifier.predict(TEXTS)
    topic = expected["topic"]
    names = [None if i < 0 else tiny.tasks[0].classes[i] for i in topic.labels]
    assert got["plain"]["topic"] == names == ["grain", "other", "grain", None]
    assert got["plain"]["topic_score"] == [0.75, 0.75, 0.75, None]
    assert got["scores"] == topic.scores.astype(float).tolist()
    assert got["plain"]["about"] == [["wheat"], [], ["wheat", "corn"], []]
    assert got["plain"]["about_score"][2] == pytest.approx([0.9, 0.9])
    assert got["plain"]["tags"][2] == ["B-crop", "O", "B-crop"]
    assert got["columns"] == [
        f"{task.name}{end}" for task in tiny.tasks for end in ("", "_score", "_scores")
    ]
    assert json.loads(got["signature"]["inputs"]) == [
        {"type": "string", "name": "text", "required": True}
    ]
    outputs = {column["name"]: column for column in json.loads(got["signature"]["outputs"])}
    assert outputs["topic"]["type"] == "string"
    assert outputs["about"]["type"] == "array"
    assert got["metadata"]["digest"] == "d1"
    assert got["metadata"]["tasks"][0] == tiny.tasks[0].to_json()


def test_the_model_holds_the_folder_a_script_and_no_pickle(
    tracking: Tracking, folder: Path, tiny: Any, files: Path
) -> None:
    model = logged(tracking, folder, tiny, examples=("an example",))
    found = tracking.client.get_logged_model(model.model_id)
    assert found.status.name == "READY"
    kept = Path(found.artifact_location.removeprefix("file://"))
    assert files in kept.parents
    names = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert {"artifacts/classifier/keyword.json", "artifacts/loader.json", "model_code.py"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib", ".pt"))]
    assert json.loads((kept / "artifacts/loader.json").read_text()) == {"loader": LOADER}
    example = json.loads((kept / "input_example.json").read_text())
    assert example == {"columns": ["text"], "data": [["an example"]]}
    required = (kept / "requirements.txt").read_text().split()
    assert set(required) == set(requirements())
    assert any(line.startswith("torch==") and "+" not in line for line in required)


def test_downloaded_by_id_it_is_the_saved_folder(
    tracking: Tracking, folder: Path, tiny: Any, tmp_path: Path
) -> None:
    model = logged(tracking, folder, tiny)
    got = download(tracking, model.uri, tmp_path / "downloaded")
    assert tmp_path / "downloaded" in got.parents
    assert (got / "keyword.json").read_text() == (folder / "keyword.json").read_text()


def test_the_saved_folder_is_left_as_it_was(tracking: Tracking, folder: Path, tiny: Any) -> None:
    logged(tracking, folder, tiny)
    assert [path.name for path in folder.iterdir()] == ["keyword.json"]
    assert folder.joinpath("keyword.json").stat().st_nlink == 1, "no link to it stays behind"


@pytest.mark.parametrize(
    "loader",
    ["os:system", "llmembed", "llmembed.methods", "llmembed.cli:main", "llmembed.methods:load.x"],
)
def test_only_our_own_functions_load_a_classifier(
    tracking: Tracking, folder: Path, tiny: Any, tmp_path: Path, loader: str
) -> None:
    recipe = tmp_path / "loader.json"
    recipe.write_text(json.dumps({"loader": loader}))
    with pytest.raises(ModelError, match="is loaded by llmembed"):
        load_classifier(folder, recipe)
    with tracking.run("fit") as run, pytest.raises(ModelError):
        log_classifier(run, folder, tasks=tiny.tasks, loader=loader)
    assert tracking.client.search_logged_models([tracking.experiment_id]) == []


def test_no_folder_no_model(tracking: Tracking, tiny: Any, tmp_path: Path) -> None:
    with tracking.run("fit") as run, pytest.raises(ModelError, match="no saved classifier"):
        log_classifier(run, tmp_path / "nothing", tasks=tiny.tasks)


def test_texts_come_as_a_table_a_column_or_a_list(tiny: Any) -> None:
    classifier = tiny("wheat")
    table = pd.DataFrame({"id": [7, 8], "text": ["wheat", "oil"]}, index=[3, 5])
    for given in (table, table["text"], table[["text"]], ["wheat", "oil"]):
        assert answer(classifier, given, {})["topic"].tolist() == ["grain", "other"]
    assert answer(classifier, table, {}).index.tolist() == [3, 5]
    assert answer(classifier, [], {}).shape == (0, 6)
    with pytest.raises(DataError, match="no column 'text' but a, b"):
        answer(classifier, pd.DataFrame({"a": ["x"], "b": ["y"]}), {})
    with pytest.raises(DataError, match="Row 1 holds no text"):
        answer(classifier, ["x", None], {})


def test_a_method_without_scores_gives_none(tiny: Any) -> None:
    rows = answer(tiny("wheat", scored=False), TEXTS, {"return_scores": True})
    assert rows["topic"].tolist()[:2] == ["grain", "other"]
    for task in tiny.tasks:
        assert rows[f"{task.name}_score"].isna().all()
        assert rows[f"{task.name}_scores"].isna().all()


def test_what_a_model_wants_is_allowed_by_variables(
    tracking: Tracking, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow hands nothing over, so who loads says it in the environment."""
    import mlflow

    task = Task(name="topic", classes=("grain", "oil"))
    monkeypatch.setenv("GATE_API_KEY", "the-key")
    with OpenAIServer(lambda messages: "oil") as server:
        told = {"kind": "endpoint", "model": "m", "base_url": server.url, "api_key_env": None}
        method = Prompting(generator=build_generator(told), style="zero_shot", max_answer_tokens=4)
        none = Examples(texts=[], labels={"topic": np.zeros(0, dtype=np.int64)})
        fitted = method.fit([task], none, none, LocalRuntime(files), Silent())
        fitted.save(tmp_path / "prompt")
        with tracking.run("fit") as run:
            location = log_classifier(run, tmp_path / "prompt", tasks=[task]).location
        with pytest.raises(ModelError, match=f"LLMEMBED_ALLOW_ENDPOINTS={server.url}$"):
            mlflow.pyfunc.load_model(location)
        monkeypatch.setenv("LLMEMBED_ALLOW_ENDPOINTS", f"{server.url}=GATE_API_KEY")
        monkeypatch.setenv("LLMEMBED_ALLOW_HUB", "perhaps")
        with pytest.raises(ConfigError, match="LLMEMBED_ALLOW_HUB: expected 1 or 0"):
            mlflow.pyfunc.load_model(location)
        monkeypatch.setenv("LLMEMBED_ALLOW_HUB", "0")
        model = mlflow.pyfunc.load_model(location)
        assert server.calls == []
        assert model.predict(pd.DataFrame({"text": ["any"]}))["topic"].tolist() == ["oil"]
        assert [call.authorization for call in server.calls] == ["Bearer the-key"]
