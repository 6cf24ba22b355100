"""How a joint kernel's share, penalty and coefficients are found.

The share s and the penalty λ are those by which left-out rows are answered best; they are looked
for on some rows where there are many. Up to ``exact_up_to`` rows the system is solved whole, above
over ``landmarks`` drawn rows (Nyström, see ``llmembed.heads.ridge``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmembed.contract import Task
from llmembed.folds import index_of
from llmembed.fusion.tfidf import NGrams
from llmembed.heads.calibration import fit_logits
from llmembed.heads.kernels import KERNELS, median_distance, terms_kernel
from llmembed.heads.ridge import Landmarks, Split, indicators, left_out, solve
from llmembed.heads.trained import pick_device
from llmembed.methods.frozen.joint import Floats, Joint, probabilities, standardised
from llmembed.metrics.deciding import judged, plainly_decided

CHOICE_ROWS = 4000
"""Rows on which share and penalty are looked for, at most."""
CHOICE_HELD = 1000
"""Of a single fold at most so many of these are held."""
LEAST_SCALE = 1e-6
"""A feature that varies by less says nothing, and is not blown up."""
MIDDLING = 0.25
"""The share of terms with which all penalties are tried."""


@dataclass(frozen=True, kw_only=True)
class JointFit:
    """How a ``Joint`` is fitted. ``kernel``: of the dense features, a name of ``KERNELS``.
    ``shares``: values of s that are tried (only 1 without dense features). ``word_ngrams`` 0 and
    ``char_ngrams`` None: no terms, s is 0. ``class_weights``: a row counts by the inverse of its
    class's share."""

    kernel: str = "rbf"
    shares: tuple[float, ...] = (0.0, 0.25, 0.5)
    penalties: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    word_ngrams: int = 2
    char_ngrams: tuple[int, int] | None = (2, 5)
    max_terms: int = 200_000
    exact_up_to: int = 15_000
    landmarks: int = 4000
    class_weights: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A joint ridge; by task what left-out rows were answered, probabilities (N, C), NaN for rows
    never left out; and what was chosen."""

    joint: Joint
    left_out: Mapping[str, Floats]
    chosen: Mapping[str, Any]


def fit_joint(
    tasks: Sequence[Task],
    features: Floats,
    texts: Sequence[str],
    labels: Mapping[str, npt.NDArray[Any]],
    splits: Sequence[Split],
    settings: JointFit,
    *,
    refit: bool,
) -> Fitted:
    """Choose share and penalty for each task by what ``splits`` leave out, and fit on all N rows
    (``refit``) or on those of the one split. ``features`` (N, F), F 0 for terms alone."""
    seen = np.arange(len(texts)) if refit else splits[0].fitted
    return _Fitting(tasks, features, texts, labels, splits, settings, seen).run(refit=refit)


class _Fitting:
    """One call's rows, in both kernels' terms."""

    def __init__(
        self,
        tasks: Sequence[Task],
        features: Floats,
        texts: Sequence[str],
        labels: Mapping[str, npt.NDArray[Any]],
        splits: Sequence[Split],
        settings: JointFit,
        seen: npt.NDArray[np.int64],
    ) -> None:
        """``seen``: the rows that the last fit is on; without a look at their labels means, width
        and terms are of these."""
        self.tasks, self.labels, self.splits, self.settings = tuple(tasks), labels, splits, settings
        self.count = len(texts)
        self.device = pick_device("auto")
        self.seen = seen
        own = features[index_of(seen)]
        self.mean = own.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = own.std(axis=0, dtype=np.float64).astype(np.float32)
        self.scale = np.where(scale < LEAST_SCALE, np.float32(1), scale)
        self.dense = standardised(features, self.mean, self.scale)
        self.terms: NGrams | None = None
        self.counted: Any = None
        if settings.word_ngrams or settings.char_ngrams is not None:
            self.terms = NGrams(
                word_ngrams=settings.word_ngrams,
                char_ngrams=settings.char_ngrams,
                max_terms=settings.max_terms,
            )
            self.terms.fit_transform([texts[row] for row in seen])
            self.counted = self.terms.transform(texts)
        self.width = self._width()
        self.targets = {
            task.name: torch.from_numpy(indicators(labels[task.name], len(task.classes))).to(
                self.device
            )
            for task in tasks
        }
        self.weights = {
            task.name: _weights(self.targets[task.name], seen, settings.class_weights)
            for task in tasks
        }

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of terms that make sense here."""
        if self.terms is None:
            return (0.0,)
        return self.settings.shares if self.dense.shape[1] else (1.0,)

    def _width(self) -> float:
        if self.settings.kernel == "linear" or not self.dense.shape[1]:
            return float(max(1, self.dense.shape[1]))
        return median_distance(self.dense[index_of(self.seen)], seed=self.settings.seed)

    def run(self, *, refit: bool) -> Fitted:
        whole = self.count <= self.settings.exact_up_to
        rows = np.arange(self.count)
        sample, splits = self._sample()
        chosen, answers = self._choose(sample, splits)
        seen = self.seen
        coefficients: dict[str, Tensor] = {}
        bias: dict[str, Tensor] = {}
        marks = seen if whole else self._drawn(seen)
        for (share, penalty), names in _grouped(chosen).items():
            tasks = [task for task in self.tasks if task.name in names]
            if whole:
                gram = self._gram(rows, rows, share)
            for task in tasks:
                y, ridge = self.targets[task.name], penalty / self.weights[task.name]
                if whole:
                    if len(sample) < self.count:
                        answers[task.name] = left_out(gram, y, ridge, self.splits)
                    index = torch.from_numpy(seen).to(self.device)
                    bias[task.name] = y[index].mean(0)
                    own = gram if refit else gram[index][:, index]
                    coefficients[task.name] = solve(own, y[index] - bias[task.name], ridge[index])
                    continue
                sums = Landmarks(
                    partial(self._near, marks, share),
                    self._gram(marks, marks, share),
                    y,
                    self.weights[task.name],
                    self.splits,
                )
                [answers[task.name]] = sums.left_out([penalty])
                parts = None if refit else [len(self.splits)]
                coefficients[task.name], bias[task.name] = sums.solve(penalty, seen=parts)
        return self._finished(chosen, answers, marks, coefficients, bias)

    def _sample(self) -> tuple[npt.NDArray[np.int64], tuple[Split, ...]]:
        """The rows on which share and penalty are looked for, and how they are left out: all, or
        some of each fold, or of a single one up to ``CHOICE_HELD`` held rows and others beside."""
        if self.count <= CHOICE_ROWS:
            return np.arange(self.count), tuple(self.splits)
        rng = np.random.default_rng(self.settings.seed)
        if len(self.splits) > 1:
            rows = np.sort(rng.permutation(self.count)[:CHOICE_ROWS])
            within = [split.within(rows) for split in self.splits]
            return rows, tuple(each for each in within if len(each.fitted) and len(each.held))
        [split] = self.splits
        held = np.sort(rng.permutation(split.held)[:CHOICE_HELD])
        fitted = np.sort(rng.permutation(split.fitted)[: CHOICE_ROWS - len(held)])
        return np.union1d(held, fitted), (Split(fitted=fitted, held=held),)

    def _drawn(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        order = np.random.default_rng(self.settings.seed).permutation(rows)
        return np.sort(order[: self.settings.landmarks])

    def _choose(
        self, rows: npt.NDArray[np.int64], splits: Sequence[Split]
    ) -> tuple[dict[str, tuple[float, float]], dict[str, Tensor]]:
        """By task share and penalty, and the answers to left-out ``rows`` under them."""
        own = [split.renumbered(rows) for split in splits]
        best: dict[str, tuple[float, float]] = {}
        chosen: dict[str, tuple[float, float]] = {}
        answers: dict[str, Tensor] = {}
        index = torch.from_numpy(rows).to(self.device)
        penalties = self.settings.penalties
        tried = set(range(len(penalties)))
        # All penalties with a middling share, then with the others those beside the best ones.
        shares = sorted(self.shares, key=lambda share: abs(share - MIDDLING))
        for share in shares:
            gram = self._gram(rows, rows, share)
            for number in sorted(tried):
                for task in self.tasks:
                    y = self.targets[task.name][index]
                    ridge = penalties[number] / self.weights[task.name][index]
                    said = left_out(gram, y, ridge, own)
                    value = _value(task, self.labels[task.name][rows], said)
                    if task.name not in best or value > best[task.name]:
                        best[task.name], chosen[task.name] = value, (share, penalties[number])
                        answers[task.name] = said
            places = [penalties.index(penalty) for _, penalty in chosen.values()]
            tried = {place + step for place in places for step in (-1, 0, 1)}
            tried &= set(range(len(penalties)))
        return chosen, answers

    def _near(
        self, marks: npt.NDArray[np.int64], share: float, rows: npt.NDArray[np.int64]
    ) -> Tensor:
        return self._gram(rows, marks, share)

    def _gram(
        self, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64], share: float
    ) -> Tensor:
        total = torch.zeros(len(rows), len(others), device=self.device)
        if share < 1:
            left, right = (self.dense[each].to(self.device).float() for each in (rows, others))
            kernel = KERNELS[self.settings.kernel]
            total = kernel(left, right, self.width).mul_(1 - share)
        if share > 0:
            near = terms_kernel(self.counted[rows], self.counted[others])
            total.add_(torch.from_numpy(near).to(self.device), alpha=share)
        return total

    def _finished(
        self,
        chosen: Mapping[str, tuple[float, float]],
        answers: Mapping[str, Tensor],
        marks: npt.NDArray[np.int64],
        coefficients: Mapping[str, Tensor],
        bias: Mapping[str, Tensor],
    ) -> Fitted:
        parts: dict[str, dict[str, Floats]] = {
            part: {} for part in ("coefficients", "bias", "slope", "offset", "of_terms")
        }
        scores: dict[str, Floats] = {}
        landmarks = self.dense[marks].numpy()
        if not landmarks.shape[1]:
            landmarks = landmarks[:0]  # of terms alone their weights are all there is
        for task in self.tasks:
            share, _ = chosen[task.name]
            own = coefficients[task.name].cpu().numpy()
            kept = own[: len(landmarks)]
            parts["coefficients"][task.name] = kept * np.float32(1 - share)
            parts["bias"][task.name] = bias[task.name].cpu().numpy()
            if share > 0:
                parts["of_terms"][task.name] = np.asarray(
                    self.counted[marks].T @ (own * np.float32(share)), dtype=np.float32
                )
            said = answers[task.name].cpu().numpy()
            held = ~np.isnan(said[:, 0])
            slope, offset = fit_logits(said[held], self.labels[task.name][held], task.kind)
            parts["slope"][task.name], parts["offset"][task.name] = slope, offset
            scores[task.name] = probabilities(said * slope + offset, task.kind)
        used = any(share > 0 for share, _ in chosen.values())
        joint = Joint(
            tasks=self.tasks,
            kernel=self.settings.kernel,
            width=self.width,
            mean=self.mean,
            scale=self.scale,
            landmarks=landmarks,
            terms=self.terms if used else None,
            **parts,
        )
        told = {
            task: {"share_of_terms": share, "penalty": penalty}
            for task, (share, penalty) in chosen.items()
        }
        return Fitted(joint=joint, left_out=scores, chosen=told)


def _weights(targets: Tensor, seen: npt.NDArray[np.int64], by_class: bool) -> Tensor:
    """Of the rows (N,), mean 1: the inverse share of a row's classes among those seen, or 1."""
    if not by_class:
        return torch.ones(len(targets), device=targets.device)
    inverse = 1 / targets[torch.from_numpy(seen).to(targets.device)].mean(0).clamp_min(
        1 / len(targets)
    )
    own = (targets * inverse).sum(1) / targets.sum(1).clamp_min(1)
    own = torch.where(targets.sum(1) > 0, own, own[targets.sum(1) > 0].mean())
    return own / own.mean()


def _value(task: Task, truth: npt.NDArray[Any], answers: Tensor) -> tuple[float, float]:
    """What answers (N, C) to left-out rows are worth under the task's metric, and by how little
    squared error among equals."""
    held = ~answers[:, 0].isnan()
    said, right = answers[held].cpu().numpy(), truth[held.cpu().numpy()]
    error = float(((said - indicators(right, said.shape[1])) ** 2).mean())
    if task.kind == "single" and plainly_decided(task):
        return float((said.argmax(1) == right).mean()), -error
    slope, offset = fit_logits(said, right, task.kind)
    return judged(task, right, probabilities(said * slope + offset, task.kind)), -error


def _grouped(
    chosen: Mapping[str, tuple[float, float]],
) -> dict[tuple[float, float], list[str]]:
    groups: dict[tuple[float, float], list[str]] = {}
    for task, what in chosen.items():
        groups.setdefault(what, []).append(task)
    return groups
