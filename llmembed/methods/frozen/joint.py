"""The joint kernel, fitted: (1 - s) · kernel of dense features + s · kernel of terms.

What is kept are the rows of the dense features that the fit stands on, and coefficients; the terms'
linear kernel needs no rows, its coefficients are weights of the terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmembed.contract import Task
from llmembed.fusion.tfidf import NGrams
from llmembed.heads.kernels import KERNELS, squared_lengths

Floats = npt.NDArray[np.float32]
Truth = Mapping[str, npt.NDArray[Any]]
LARGEST = 6e4
"""What half precision holds."""
ANSWERED = 1024
"""Texts whose kernel values are in memory at a time when answering."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Fitted. ``landmarks`` float16 (M, F), standardised; by task ``coefficients`` float32 (M, C),
    ``of_terms`` float32 (T, C), ``bias`` and ``offset`` float32 (C,), ``slope`` float32 (C,): an
    answer f has the logit slope · f + offset."""

    tasks: tuple[Task, ...]
    kernel: str
    width: float
    mean: Floats
    scale: Floats
    landmarks: npt.NDArray[np.float16]
    coefficients: Mapping[str, Floats]
    bias: Mapping[str, Floats]
    slope: Mapping[str, Floats]
    offset: Mapping[str, Floats]
    of_terms: Mapping[str, Floats] = field(default_factory=dict)
    terms: NGrams | None = None

    @property
    def parameters(self) -> int:
        """Fitted numbers, landmarks apart."""
        told = (self.coefficients, self.of_terms, self.bias)
        return sum(each.size for arrays in told for each in arrays.values())

    def answers(self, rows: Floats, texts: Sequence[str]) -> dict[str, Floats]:
        """f by task, float32 (N, C), of features (N, F) as they were read."""
        found = {t.name: np.repeat(self.bias[t.name][None], len(texts), 0) for t in self.tasks}
        if self.of_terms and len(texts):
            assert self.terms is not None
            counted = self.terms.transform(texts)
            for name, weights in self.of_terms.items():
                found[name] += counted @ weights
        if rows.shape[1]:
            marks, squared, joined = self._ready
            ends = np.cumsum([len(task.classes) for task in self.tasks])[:-1]
            for start in range(0, len(texts), ANSWERED):
                part = slice(start, start + ANSWERED)
                near = KERNELS[self.kernel](
                    standardised(rows[part], self.mean, self.scale).float(),
                    marks,
                    self.width,
                    squared,
                )
                pieces = np.split((near @ joined).numpy(), ends, axis=1)
                for task, piece in zip(self.tasks, pieces, strict=True):
                    found[task.name][part] += piece
        return found

    @cached_property
    def _ready(self) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks in float32, their squared lengths, and all tasks' coefficients side by side."""
        marks = torch.from_numpy(self.landmarks).float()
        joined = np.concatenate([self.coefficients[task.name] for task in self.tasks], axis=1)
        return marks, squared_lengths(marks), torch.from_numpy(joined)

    def scores(self, rows: Floats, texts: Sequence[str]) -> dict[str, Floats]:
        """Probabilities by task, float32 (N, C)."""
        found = self.answers(rows, texts)
        return {
            task.name: probabilities(
                found[task.name] * self.slope[task.name] + self.offset[task.name], task.kind
            )
            for task in self.tasks
        }

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Settings and arrays; ``from_parts`` takes them, and what ``terms.to_json`` says."""
        arrays: dict[str, np.ndarray] = {
            "mean": self.mean,
            "scale": self.scale,
            "landmarks": self.landmarks,
        }
        for task in self.tasks:
            for what in ("coefficients", "bias", "slope", "offset"):
                arrays[f"{task.name}.{what}"] = getattr(self, what)[task.name]
            if task.name in self.of_terms:
                arrays[f"{task.name}.of_terms"] = self.of_terms[task.name]
        if self.terms is not None:
            arrays["idf"] = self.terms.idf
        return {"kernel": self.kernel, "width": self.width}, arrays

    @classmethod
    def from_parts(
        cls,
        tasks: tuple[Task, ...],
        settings: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        terms: Sequence[Mapping[str, Any]] | None,
    ) -> Joint:
        """Raises ``KeyError``, ``ValueError`` for parts that do not belong together."""
        if settings["kernel"] not in KERNELS:
            raise ValueError(f"unknown kernel {settings['kernel']!r}")
        marks = arrays["landmarks"]
        if marks.ndim != 2 or marks.dtype != np.float16:
            raise ValueError(f"landmarks have the shape {marks.shape} and type {marks.dtype}")
        if (terms is None) != ("idf" not in arrays):
            raise ValueError("terms and their weights do not fit")
        if not all(np.isfinite(each).all() for each in (*arrays.values(), settings["width"])):
            raise ValueError("not every number is finite")
        width = (marks.shape[1],)
        if arrays["mean"].shape != width or arrays["scale"].shape != width:
            raise ValueError("means and landmarks do not fit")
        told: dict[str, dict[str, np.ndarray]] = {}
        for what in ("coefficients", "bias", "slope", "offset", "of_terms"):
            told[what] = {}
            for task in tasks:
                if what == "of_terms" and f"{task.name}.of_terms" not in arrays:
                    continue
                values = arrays[f"{task.name}.{what}"]
                rows = {"coefficients": len(marks), "of_terms": len(arrays.get("idf", ()))}
                shape = (*((rows[what],) if what in rows else ()), len(task.classes))
                if values.shape != shape:
                    raise ValueError(f"{what} of task {task.name!r} have the shape {values.shape}")
                told[what][task.name] = values
        return cls(
            tasks=tasks,
            kernel=settings["kernel"],
            width=float(settings["width"]),
            mean=arrays["mean"],
            scale=arrays["scale"],
            landmarks=marks,
            terms=None if terms is None else NGrams.from_json(terms, arrays["idf"]),
            **told,
        )


def standardised(rows: Floats, mean: Floats, scale: Floats) -> Tensor:
    """Features (N, F) as the kernel sees them, in half precision, as landmarks are kept."""
    found = np.empty(rows.shape, dtype=np.float16)
    for start in range(0, len(rows), ANSWERED):
        part = slice(start, start + ANSWERED)
        found[part] = np.clip((rows[part] - mean) / scale, -LARGEST, LARGEST)
    return torch.from_numpy(found)


def probabilities(logits: Floats, kind: str) -> Floats:
    """Softmax, for ``multi`` sigmoid; float32 (N, C)."""
    given = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32))
    scored: Floats = (given.sigmoid() if kind == "multi" else given.softmax(1)).numpy()
    return scored
