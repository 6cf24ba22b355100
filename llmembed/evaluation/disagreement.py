"""Validation and test disagree: by how much, what differs, and what to do, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from llmembed.evaluation.domains import Embed
from llmembed.evaluation.gaps import Gap, gaps_of
from llmembed.evaluation.result import Result
from llmembed.evaluation.rows import Row
from llmembed.evaluation.shift import ClassShares, Shift, shift_between
from llmembed.evaluation.wording import fraction

if TYPE_CHECKING:
    from llmembed.texts import Corpus

ITEM = "  - "
RAREST = 1_000_000
"""Of so many cases chance is said to make fewer than one."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """``gaps``: the tasks whose figure of the row ``label`` differs beyond chance. ``by_shares``:
    of a task with one class a text and ranked by accuracy, what the other class shares alone would
    add to the figure on test, each class being answered as well as on validation."""

    label: str
    gaps: tuple[Gap, ...]
    shift: Shift
    by_shares: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Disagreement:
        return cls(
            label=data["label"],
            gaps=tuple(Gap.from_json(each) for each in data["gaps"]),
            shift=Shift.from_json(data["shift"]),
            by_shares=dict(data["by_shares"]),
        )

    @property
    def figures(self) -> dict[str, float]:
        """The numbers under the names MLflow shows."""
        found: dict[str, float] = {}
        for gap in self.gaps:
            found[f"shift/{gap.task}/test_minus_valid"] = gap.test - gap.valid
            found[f"shift/{gap.task}/p"] = gap.p
        for each in self.shift.classes:
            found[f"shift/{each.task}/class_shares"] = each.distance
        if self.shift.unseen is not None:
            found["shift/unseen_words_valid"] = self.shift.unseen.valid
            found["shift/unseen_words_test"] = self.shift.unseen.test
        for name in ("words", "embeddings"):
            separation = getattr(self.shift, name)
            if separation is not None:
                found[f"shift/auc_{name}"] = separation.auc
        return found

    @property
    def summary(self) -> str:
        """In one line, for a tag."""
        return "; ".join(
            f"{gap.task} {_named(gap.metric)} {gap.valid:.4f} on validation, {gap.test:.4f} on test"
            for gap in self.gaps
        )

    def lines(self) -> list[str]:
        """By how much they differ, what differs (each a line that begins with ``ITEM``), and what
        to do."""
        return [self._how_far(), *self._what_differs(), self._what_to_do()]

    def _how_far(self) -> str:
        several = len(self.shift.classes) > 1
        said = "; ".join(
            f"{f'{gap.task} ' if several else ''}{_named(gap.metric)} is {fraction(gap.valid)} on "
            f"validation ({gap.valid_texts:,} texts) and {fraction(gap.test)} on test "
            f"({gap.test_texts:,} texts), a difference that chance makes {_how_often(gap)}"
            for gap in self.gaps
        )
        return f"Validation and test disagree: {self.label}'s {said}."

    def _what_differs(self) -> list[str]:
        found = sorted(self._differences(), key=lambda each: -each[0])
        if found:
            return ["What differs, largest first:", *(f"{ITEM}{words}" for _, words in found)]
        compared = ["class shares", *(["words"] if self.shift.words else [])]
        compared += ["embeddings"] if self.shift.embeddings else []
        return [
            f"What was compared ({', '.join(compared)}) does not differ beyond chance. What is "
            "left is what the labels mean: other annotators, other rules, or mistakes."
        ]

    def _differences(self) -> list[tuple[float, str]]:
        """Size, from 0 to 1, and words of what differs beyond chance."""
        shift = self.shift
        found = []
        apart = [
            (separation, what)
            for separation, what in ((shift.words, "words"), (shift.embeddings, "embeddings"))
            if separation is not None and separation.beyond_chance
        ]
        if apart:
            said = " and ".join(f"{_auc(each.auc)} by their {what}" for each, what in apart)
            found.append(
                (
                    max(each.distance for each, _ in apart),
                    f"the texts themselves, which a classifier tells from training texts with an "
                    f"AUC of {said} (.50: not at all, 1: always)",
                )
            )
        for each in shift.classes:
            if each.beyond_chance:
                found.append((each.distance, self._of_classes(each)))
        if shift.unseen is not None and shift.unseen.beyond_chance:
            found.append(
                (
                    shift.unseen.distance,
                    f"words that no training text holds, {_percent(shift.unseen.test)} of test's "
                    f"and {_percent(shift.unseen.valid)} of validation's",
                )
            )
        if abs(shift.known_test - shift.known_valid) >= 0.01:
            found.append(
                (
                    abs(shift.known_test - shift.known_valid),
                    f"texts that also stand in training, {_percent(shift.known_test)} of test's "
                    f"and {_percent(shift.known_valid)} of validation's",
                )
            )
        return found

    def _of_classes(self, shares: ClassShares) -> str:
        moved = ", ".join(
            f"{each.name} {_percent(each.train)} in training and {_percent(each.test)} in test"
            for each in shares.moved
        )
        of = f" of {shares.task}" if len(self.shift.classes) > 1 else ""
        said = f"class shares{of} ({moved})"
        if shares.task not in self.by_shares:
            return said
        whole = next(gap.test - gap.valid for gap in self.gaps if gap.task == shares.task)
        return (
            f"{said}, which alone would change the figure by "
            f"{_signed(self.by_shares[shares.task])} of {_signed(whole)}"
        )

    def _what_to_do(self) -> str:
        if all(gap.test > gap.valid for gap in self.gaps):
            said = (
                "What to do: test is the easier part, so expect validation's figure of texts like "
                "those trained on, and test's of texts like test's only"
            )
            if self.shift.known_test > self.shift.known_valid + 0.01:
                said += "; data.drop_leaks=true leaves out the test texts that were trained on"
            return said + "."
        if not self._differences():
            return (
                "What to do: read some test texts answered wrongly and see whether you agree with "
                "their labels; have some texts of both parts labelled by the same people. Until "
                "then go by the test column, and do not rely on thresholds, which validation chose."
            )
        shares = ""
        if any(
            each / (gap.test - gap.valid) >= 0.5
            for gap in self.gaps
            if (each := self.by_shares.get(gap.task)) is not None
        ):
            shares = (
                "class shares account for most of it, so if test's are those to come, draw "
                "validation with these shares first; "
            )
        return (
            f"What to do: {shares}label some texts of the kind that test holds, and train on them "
            "too; take validation texts that are like test's (data.valid=FILE, parted by time or "
            "source rather than by chance), since validation chose the winner, its settings and "
            "its thresholds. Until then go by the test column, and do not rely on the thresholds."
        )


def find_disagreement(
    winner: Row,
    results: Sequence[Result],
    corpus: Corpus,
    *,
    rivals: int,
    embed: Embed | None = None,
) -> Disagreement | None:
    """What is to be said of ``winner``, of ``rivals`` rows, with its sound ``results``: None where
    there is no test, or where validation and test agree up to chance; then nothing is computed
    beyond that."""
    if corpus.test is None:
        return None
    gaps = tuple(gap for gap in gaps_of(winner, results, rivals=rivals) if gap.beyond_chance)
    if not gaps:
        return None
    return Disagreement(
        label=winner.label,
        gaps=gaps,
        shift=shift_between(corpus.tasks, corpus.train, corpus.valid, corpus.test, embed=embed),
        by_shares={
            gap.task: fmean(_by_shares(result, gap.task) for result in results)
            for gap in gaps
            if gap.metric == "accuracy" and _all_validated(results[0], gap.task)
        },
    )


def _by_shares(result: Result, task: str) -> float:
    """Validation's recall of each class, weighted by test's shares instead of validation's."""
    valid, test = result.valid[task].per_class, result.test[task].per_class
    recall = np.array([each.recall for each in valid])
    before, after = (np.array([each.support for each in rows]) for rows in (valid, test))
    return float(recall @ (after / after.sum() - before / before.sum()))


def _all_validated(result: Result, task: str) -> bool:
    """Whether validation holds every class that test does."""
    rows = zip(result.valid[task].per_class, result.test[task].per_class, strict=True)
    return all(valid.support or not test.support for valid, test in rows)


def _named(metric: str) -> str:
    return metric.replace("_", " ")


def _how_often(gap: Gap) -> str:
    rare = gap.p * RAREST < 1
    cases = f"fewer than 1 of {RAREST:,}" if rare else f"1 of {round(1 / gap.p):,}"
    best = f", the best of {gap.comparisons} being judged" if gap.comparisons > 1 else ""
    return f"in {cases} cases{best}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _auc(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _signed(value: float) -> str:
    return ("−" if value < 0 else "+") + fraction(abs(value))
