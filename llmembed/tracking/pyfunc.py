"""A fitted classifier as an MLflow model: its saved folder, read by a small script.

No pickle is written or read. The model holds the folder ``Classifier.save`` wrote and a JSON file
that names the function to load it with, by dotted name, since this room does not know methods.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.contract import Classifier, Prediction, Task, unanswered_rows
from llmembed.errors import DataError, ModelError, NoAnswerError
from llmembed.permissions import Allowed, loading, shown
from llmembed.tracking.environment import package_versions

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

    from llmembed.tracking.run import Run

LOADER = "llmembed.methods:load"
TEXT_COLUMN = "text"
LOADERS = (LOADER,)
"""The functions that a model may name to be loaded with."""
_SCRIPT = Path(__file__).parent / "model_code.py"
# What a loaded classifier may need; those installed here are required in these versions.
_NEEDED = (
    "llmembed",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "torch",
    "transformers",
)
_ASKING = ("faiss-cpu", "openai")
"""What methods that ask a language model need beside, where it is installed."""


@dataclass(frozen=True, kw_only=True)
class LoggedClassifier:
    """A classifier in MLflow: ``uri`` is ``models:/<model_id>``, ``location`` where its files
    lie."""

    model_id: str
    uri: str
    location: str


def log_classifier(
    run: Run,
    folder: Path,
    *,
    tasks: Sequence[Task],
    loader: str = LOADER,
    examples: Sequence[str] = ("a text to classify",),
    metadata: Mapping[str, Any] | None = None,
) -> LoggedClassifier:
    """Log the classifier saved in ``folder`` as a model of ``run``.

    ``loader`` is one of ``LOADERS``, ``module:function``, called with the folder. Nothing is
    predicted: the signature follows from ``tasks``, the requirements are the installed versions.
    Raises ``ModelError`` when ``folder`` is none or ``loader`` not one of ours.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no saved classifier in {folder}.")
    _checked(loader)
    client = run.client
    experiment_id = client.get_run(run.id).info.experiment_id
    model = client.create_logged_model(
        experiment_id, name="classifier", source_run_id=run.id, model_type="classifier"
    )
    try:
        with tempfile.TemporaryDirectory() as temporary:
            saved = Path(temporary) / "model"
            _save(
                saved,
                model_id=model.model_id,
                run_id=run.id,
                location=model.artifact_location,
                folder=folder,
                loader=loader,
                signature=signature_of(tasks),
                examples=examples,
                metadata={"tasks": [task.to_json() for task in tasks], **(metadata or {})},
            )
            client.log_model_artifacts(model.model_id, str(saved))
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.finalize_logged_model(model.model_id, "READY")
    _show_under_run(run, model.model_id)
    return LoggedClassifier(
        model_id=model.model_id,
        uri=f"models:/{model.model_id}",
        location=model.artifact_location,
    )


def _show_under_run(run: Run, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    run.client.log_outputs(run.id, [LoggedModelOutput(model_id, step=0)])


def _save(
    path: Path,
    *,
    model_id: str,
    run_id: str,
    location: str,
    folder: Path,
    loader: str,
    signature: ModelSignature,
    examples: Sequence[str],
    metadata: Mapping[str, Any],
) -> None:
    import pandas as pd
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory() as temporary:
        # One fixed name inside the model, whatever the folder is called.
        named = Path(temporary) / "classifier"
        shutil.copytree(folder, named, copy_function=_link)
        recipe = Path(temporary) / "loader.json"
        recipe.write_text(json.dumps({"loader": loader}))
        save_model(
            str(path),
            python_model=str(_SCRIPT),
            artifacts={"classifier": str(named), "loader": str(recipe)},
            mlflow_model=Model(
                artifact_path=location, run_id=run_id, model_id=model_id, model_uuid=model_id
            ),
            signature=signature,
            input_example=pd.DataFrame({TEXT_COLUMN: list(examples)}),
            pip_requirements=requirements(),
            metadata=dict(metadata),
        )


def _link(source: str, target: str) -> str:
    """A hard link where the file system allows one: fine-tuned weights are gigabytes."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
    return target


def _is_installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def requirements() -> list[str]:
    """``name==version`` of what a loaded classifier needs, as installed here, without build
    marks such as ``+cpu`` that no index may know."""
    installed = package_versions((*_NEEDED, *(name for name in _ASKING if _is_installed(name))))
    return [f"{name}=={version.partition('+')[0]}" for name, version in installed.items()]


def signature_of(tasks: Sequence[Task]) -> ModelSignature:
    """In: a column ``text``. Out, for each task: its label(s), ``<task>_score`` (the score of
    each label given) and, with the parameter ``return_scores``, ``<task>_scores``: those of all
    classes in the order of the metadata's ``tasks``."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import (
        Array,
        ColSpec,
        DataType,
        ParamSchema,
        ParamSpec,
        Schema,
        TensorSpec,
    )

    outputs: list[ColSpec | TensorSpec] = []
    for task in tasks:
        label, score = DataType.string, DataType.double
        several = task.kind != "single"
        scores = Array(Array(score)) if task.kind == "tokens" else Array(score)
        outputs += [
            ColSpec(Array(label) if several else label, task.name, required=several),
            ColSpec(Array(score) if several else score, f"{task.name}_score", required=False),
            ColSpec(scores, f"{task.name}_scores", required=False),
        ]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, TEXT_COLUMN)]),
        outputs=Schema(outputs),
        params=ParamSchema([ParamSpec("return_scores", DataType.boolean, False)]),
    )


def _checked(loader: str) -> tuple[str, str]:
    """Module and function of ``loader``. A model downloaded from elsewhere must not be able to
    name any other: to import a module is to run it."""
    if loader not in LOADERS:
        raise ModelError(
            f"A classifier is loaded by {' or '.join(LOADERS)}, not by {shown(loader)!r}."
        )
    module, _, function = loader.partition(":")
    return module, function


def load_classifier(folder: str | Path, recipe: str | Path) -> Classifier:
    """The classifier in ``folder``, by the function ``recipe`` names. What it may do besides
    computing with its weights is said by the variables of ``permissions.ENVIRONMENT``, since
    MLflow hands nothing over. Raises ``ModelError``, ``ConfigError``."""
    module, function = _checked(json.loads(Path(recipe).read_text())["loader"])
    load = getattr(importlib.import_module(module), function)
    with loading(Allowed.of_environment(os.environ)):
        classifier: Classifier = load(Path(folder))
    return classifier


def answer(classifier: Classifier, given: Any, params: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each text of ``given`` (a table with a column ``text``, or texts alone). Raises
    ``NoAnswerError`` where an asked model's endpoint left a text without an answer."""
    import pandas as pd

    texts = _texts(given)
    predictions = classifier.predict(texts)
    if missing := int(unanswered_rows(predictions).sum()):
        raise NoAnswerError(f"{missing:,} of {len(texts):,} texts got no answer; ask again")
    columns = columns_of(
        classifier.tasks, predictions, len(texts), bool(params.get("return_scores"))
    )
    index = given.index if isinstance(given, pd.DataFrame | pd.Series) else None
    return pd.DataFrame(columns, index=index)


def columns_of(
    tasks: Sequence[Task], predictions: Mapping[str, Prediction], n: int, return_scores: bool
) -> dict[str, list[Any]]:
    """The columns that ``signature_of`` names, each with a value for each of ``n`` texts."""
    columns: dict[str, list[Any]] = {}
    for task in tasks:
        labels, scores, everything = _rows(task, predictions[task.name], n)
        columns[task.name] = labels
        columns[f"{task.name}_score"] = scores
        if return_scores:
            columns[f"{task.name}_scores"] = everything
    return columns


def _texts(given: Any) -> list[str]:
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        if TEXT_COLUMN not in given and given.shape[1] != 1:
            raise DataError(
                f"The table has no column {TEXT_COLUMN!r} but {', '.join(map(str, given))}."
            )
        given = given[TEXT_COLUMN] if TEXT_COLUMN in given else given.iloc[:, 0]
    texts = [given] if isinstance(given, str) else list(given)
    missing = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if missing:
        raise DataError(f"Row {missing[0]} holds no text ({len(missing)} such rows).")
    return texts


def _rows(task: Task, prediction: Prediction, n: int) -> tuple[list[Any], list[Any], list[Any]]:
    """For each text: label(s), their score(s), the scores of all classes. None for an answer
    that could not be read or a score that the method does not give."""
    if task.kind == "tokens":
        return _token_rows(task, prediction, n)
    labels: list[Any] = []
    scores: list[Any] = []
    everything: list[Any] = []
    for row in range(n):
        given = None if prediction.scores is None else prediction.scores[row]
        everything.append(None if given is None else [float(score) for score in given])
        if task.kind == "multi":
            chosen = [i for i, on in enumerate(prediction.labels[row]) if on]
            labels.append([task.classes[i] for i in chosen])
            scores.append(None if given is None else [float(given[i]) for i in chosen])
        else:
            label = int(prediction.labels[row])
            unread = label < 0 or bool(prediction.invalid[row])
            labels.append(None if unread else task.classes[label])
            scores.append(None if unread or given is None else float(given[label]))
    return labels, scores, everything


def _token_rows(
    task: Task, prediction: Prediction, n: int
) -> tuple[list[Any], list[Any], list[Any]]:
    """As ``_rows``, with one tag for each word of a text."""
    assert prediction.offsets is not None, "a tokens prediction carries offsets"
    rows: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for start, end in zip(prediction.offsets[:n], prediction.offsets[1:], strict=True):
        tags = [int(tag) for tag in prediction.labels[start:end]]
        rows[0].append([None if tag < 0 else task.classes[tag] for tag in tags])
        if prediction.scores is None:
            rows[1].append(None)
            rows[2].append(None)
            continue
        words = prediction.scores[start:end]
        rows[1].append(
            [None if tag < 0 else float(word[tag]) for tag, word in zip(tags, words, strict=True)]
        )
        rows[2].append([[float(score) for score in word] for word in words])
    return rows
