"""``encoder``: a Hugging Face encoder fine-tuned whole, with a linear head for each task.

The multi-task fine-tuning paper's encoders (2025): one head for one task, two sequence heads or a
sequence head and a head for words at once, trained by the sum of their cross-entropies.
``settings`` such as ``FinetuneConfig.paper()`` are its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from llmembed.contract import (
    Examples,
    Prediction,
    Reporter,
    Runtime,
    Stage,
    Task,
    Usage,
)
from llmembed.errors import ConfigError
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.answers import Answering, EncoderAnswers, Floats, Logits, answer_table
from llmembed.finetuning.places import source_of
from llmembed.finetuning.worker import EncoderWork, load_tokeniser, part_of
from llmembed.methods import saved
from llmembed.methods.answers import decide, with_thresholds
from llmembed.methods.finetuned.base import Spread, Trains, finetune
from llmembed.methods.finetuned.model_folder import InModelFolder, ModelFolder, check_reach
from llmembed.metrics.deciding import thresholds

ROWS = 64
"""Texts sent to an actor at once."""


@dataclass(frozen=True, kw_only=True)
class EncoderClassifier(InModelFolder):
    """A fine-tuned encoder. ``temperatures``: task -> by what its logits are divided. ``dtype``:
    see ``EncoderAnswers``. ``chosen``: what validation chose."""

    method: ClassVar[str] = "encoder"
    tasks: tuple[Task, ...]
    model: ModelFolder
    max_tokens: int
    dtype: Literal["float32", "bfloat16"]
    temperatures: Mapping[str, float]
    fit_usage: Usage
    parameters_trained: int
    chosen: Mapping[str, Any]
    fit_notes: tuple[str, ...] = ()
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was trained, and how many texts of the last ``predict`` were as long as may be."""
        full, texts = self._loaded.get("full", (0, 0))
        if not full:
            return self.fit_notes
        said = f"of {texts:,} texts: {full:,} filled all {self.max_tokens} tokens, cut as a rule"
        return (*self.fit_notes, said)

    @property
    def predict_usage(self) -> Usage:
        """What the last ``predict`` took, on all actors together."""
        return self._loaded.get("usage", Usage())  # type: ignore[no-any-return]

    def release(self) -> None:
        """Give back what the model holds in this process; it is loaded again when next asked."""
        self._loaded.pop("model", None)

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        logits = self.logits(texts, runtime)
        return {task.name: self._prediction(task, logits[task.name]) for task in self.tasks}

    def _prediction(self, task: Task, rows: Sequence[Floats]) -> Prediction:
        flat = stacked(task, rows)
        scores = probabilities(flat / np.float32(self.temperatures[task.name]), task.kind)
        if task.kind != "tokens":
            return decide(scores, task)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return Prediction(
            labels=scores.argmax(axis=1).astype(np.int64),
            scores=scores,
            invalid=np.zeros(len(rows), dtype=bool),
            offsets=offsets,
        )

    def logits(self, texts: Sequence[str], runtime: Runtime | None) -> Logits:
        """Uncalibrated logits of each text, in order."""
        if not len(texts):
            return {task.name: [] for task in self.tasks}
        # The longest first, so that texts of like length are answered together.
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        table = pa.table({"row": order, "text": [texts[row] for row in order]})
        if runtime is None:
            tables = [answer_table(self._here(), table)]
        else:
            make = Answering.of(
                self.model.path,
                max_tokens=self.max_tokens,
                dtype=self.dtype,
                ship=self.model.local,
            )
            stage = Stage(make=make, rows=ROWS, model=True)
            tables = list(runtime.map_texts(table, [stage], label="label texts"))
        found = pa.concat_tables(tables).sort_by("row")
        told = [Usage.from_json(json.loads(u)) for u in found.column("usage").to_pylist() if u]
        self._loaded["usage"] = sum(told, Usage())
        full = sum(n >= self.max_tokens for n in found.column("tokens").to_pylist())
        self._loaded["full"] = (full, len(texts))
        return {
            task.name: [
                np.asarray(row.values, dtype=np.float32)
                if task.kind != "tokens"
                else np.asarray(row.values, dtype=np.float32).reshape(-1, len(task.classes))
                for row in found.column(f"logits/{task.name}")
            ]
            for task in self.tasks
        }

    def token_counts(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that each text has, and that are read of it, int64 (N,). By a tokenizer of its
        own: one may not be used by two threads at once."""
        if "counter" not in self._loaded:
            self._loaded["counter"] = load_tokeniser(str(self.model.path / "encoder"))
        ids = self._loaded["counter"](list(texts), truncation=False, verbose=False)["input_ids"]
        full = np.array([len(row) for row in ids], dtype=np.int64)
        return full, np.minimum(full, self.max_tokens)

    def _here(self) -> EncoderAnswers:
        if "model" not in self._loaded:
            self._loaded["model"] = EncoderAnswers(
                self.model.path, max_tokens=self.max_tokens, dtype=self.dtype
            )
        model: EncoderAnswers = self._loaded["model"]
        return model

    def save(self, folder: Path) -> None:
        """``folder``/model/encoder is as ``save_pretrained`` leaves it, with its tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.copy_to(folder / "model")
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={
                "max_tokens": self.max_tokens,
                "dtype": self.dtype,
                "temperatures": dict(self.temperatures),
                "parameters_trained": self.parameters_trained,
                "chosen": dict(self.chosen),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> EncoderClassifier:
        tasks, usage, settings, _ = saved.read(folder)
        loaded = cls(
            tasks=tasks, model=ModelFolder(path=folder / "model"), fit_usage=usage, **settings
        )
        # Who loads from a folder that is soon gone (a worker's, the registry's) still gets answers.
        loaded._here()
        loaded.token_counts(["a text"])
        return loaded


def stacked(task: Task, rows: Sequence[Floats]) -> Floats:
    """(N, C), for words (W, C)."""
    if not rows:
        return np.zeros((0, len(task.classes)), dtype=np.float32)
    return np.concatenate(rows) if task.kind == "tokens" else np.stack(rows)


def probabilities(logits: Floats, kind: str) -> Floats:
    if kind == "multi":
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    shares: Floats = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


@dataclass(frozen=True, kw_only=True)
class Encoder(Trains):
    """Fits ``EncoderClassifier``.

    ``model``: preset, hub id or folder. ``pooling``: what the heads of whole texts read, the mean
    of the last states or the first one. ``training``: see ``FinetuneConfig``. ``spread``: on how
    many workers. Text kinds single, multi and tokens, all at once.
    """

    model: str
    revision: str | None = None
    pooling: Literal["mean", "cls"] = "mean"
    training: FinetuneConfig = field(default_factory=FinetuneConfig)
    spread: Spread = field(default_factory=Spread)
    name: str = "encoder"

    def __post_init__(self) -> None:
        if self.training.lora is not None:
            raise ConfigError("training.lora is for decoders; an encoder is trained whole")
        if self.training.padding_free:
            raise ConfigError("training.padding_free is for decoders; leave it out")

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, seed apart."""
        return {"model": self.model, "pooling": self.pooling, **self.training_settings}

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> EncoderClassifier:
        for name in self.training.loss_weights:
            if name not in {task.name for task in tasks}:
                known = ", ".join(task.name for task in tasks)
                raise ConfigError(f"loss_weights: there is no task {name!r}; tasks are {known}")
        source = source_of(self.model, revision=self.revision)
        check_reach(runtime, 4 * source.parameters)
        done = finetune(
            EncoderWork(
                source=source,
                tasks=tuple(tasks),
                train=part_of(train, tasks),
                valid=part_of(valid, tasks),
                config=self.training,
                pooling=self.pooling,
            ),
            name=self.name,
            source=source,
            config=self.training,
            spread=self.spread,
            runtime=runtime,
            reporter=reporter,
        )
        fitted = EncoderClassifier(
            tasks=tuple(tasks),
            model=done.model,
            max_tokens=min(self.training.max_tokens, source.context or self.training.max_tokens),
            dtype="bfloat16" if done.bf16 else "float32",
            temperatures={task.name: 1.0 for task in tasks},
            fit_usage=done.usage,
            parameters_trained=done.parameters_trained,
            chosen={"step": done.best_step},
            fit_notes=(done.why,),
        )
        if self.training.calibrate or any(map(thresholds, tasks)):
            return self._settled(fitted, valid, runtime)
        return fitted

    def _settled(
        self, fitted: EncoderClassifier, valid: Examples, runtime: Runtime
    ) -> EncoderClassifier:
        """With temperatures and, where the metric asks for them, thresholds of validation."""
        from llmembed.finetuning.rows import texts_of
        from llmembed.heads.calibration import fit_temperature

        logits = fitted.logits(texts_of(valid), runtime)
        flat = {task.name: stacked(task, logits[task.name]) for task in fitted.tasks}
        found = dict(fitted.temperatures)
        if self.training.calibrate:
            for task in fitted.tasks:
                truth = valid.labels[task.name]
                found[task.name] = fit_temperature(flat[task.name], truth, task.kind)

        def scores(task: Task) -> Floats:
            return probabilities(flat[task.name] / np.float32(found[task.name]), task.kind)

        chosen = with_thresholds(fitted.tasks, valid, scores)
        usage = fitted.fit_usage + fitted.predict_usage
        return replace(fitted, tasks=chosen, temperatures=found, fit_usage=usage)
