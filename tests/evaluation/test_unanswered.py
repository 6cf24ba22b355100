"""Texts that never got an answer make a row incomplete; answers nobody can read make it failed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from small_corpora import made_up
from small_methods import FitWordVotes, WordVotes

from llmembed.contract import Prediction, unanswered_rows
from llmembed.evaluation import Leaderboard, Result, evaluate


@dataclass(frozen=True, kw_only=True)
class Patchy(WordVotes):
    """Gets no answer to ``missing`` texts and can't read those to ``unreadable`` others, the first
    of each part; ``complaints`` as an asked model's endpoint says them."""

    missing: int
    unreadable: int
    complaints: tuple[str, ...] = ("no answer: it answered 429 (2 times)",)

    def predict(self, texts, runtime=None):
        lost = np.arange(len(texts)) < self.missing
        unread = np.arange(len(texts)) < self.missing + self.unreadable
        return {
            name: Prediction(
                labels=np.where(unread, -1, found.labels),
                scores=np.where(unread[:, None], 0.0, found.scores).astype(np.float32),
                invalid=unread,
                unanswered=lost,
            )
            for name, found in super().predict(texts).items()
        }


@dataclass(frozen=True, kw_only=True)
class FitPatchy(FitWordVotes):
    missing: int = 0
    unreadable: int = 0
    missing_seeds: tuple[int, ...] = (0,)
    name: str = "patchy"

    @property
    def label(self) -> str:
        return self.name

    def fit(self, tasks, train, valid, runtime, reporter):
        found = super().fit(tasks, train, valid, runtime, reporter)
        told = {name: getattr(found, name) for name in ("tasks", "logs", "priors", "fit_usage")}
        missing = self.missing if self.seed in self.missing_seeds else 0
        return Patchy(**told, missing=missing, unreadable=self.unreadable)


@pytest.fixture(scope="module")
def corpus():
    return made_up(seed=0)


def test_a_row_with_unanswered_texts_is_incomplete_and_can_not_win(corpus):
    (whole,) = evaluate(FitWordVotes(share=0.1), corpus, None, seeds=(0,))
    (patchy,) = evaluate(FitPatchy(share=1.0, missing=2), corpus, None, seeds=(0,))
    n_valid, n_test = len(corpus.valid), len(corpus.test)
    assert patchy.status == "incomplete"
    assert patchy.reason == (
        f"2 of {n_valid:,} validation questions got no answer and 2 of {n_test:,} test questions "
        "got no answer (no answer: it answered 429 (2 times)); the same command asks these again"
    )
    assert patchy.latency is None
    assert patchy.valid_value() > whole.valid_value(), "it would win"
    board = Leaderboard([patchy, whole])
    assert board.winner is not None and board.winner.label == whole.label
    assert board.winner_result == whole
    row = board.rows[-1]
    assert (row.label, row.eligible, row.seeds) == ("patchy", False, 0)
    assert row.status == f"incomplete: {patchy.reason}"
    assert row.valid_mean is not None, "what was answered is shown"
    assert f"patchy: incomplete: 2 of {n_valid:,}" in board.to_markdown()
    assert Result.from_json(patchy.to_json()) == patchy
    assert patchy.to_json()["valid"]["topic"]["unanswered"] == 2


def test_one_incomplete_seed_is_enough(corpus):
    results = evaluate(FitPatchy(missing=1, missing_seeds=(1,)), corpus, None, seeds=(0, 1, 2))
    assert [result.status for result in results] == ["ok", "incomplete", "ok"]
    (row,) = Leaderboard(results).rows
    assert row.status.startswith("incomplete on 1 of 3 seeds: 1 of ")
    assert not row.eligible and Leaderboard(results).winner is None


@pytest.mark.parametrize(("share", "status"), [(0.85, "ok"), (0.95, "failed"), (1.0, "failed")])
def test_answers_that_nobody_can_read_are_no_accuracy(share, status, corpus):
    n = len(corpus.valid)
    (result,) = evaluate(FitPatchy(unreadable=round(share * n)), corpus, None, seeds=(0,))
    assert result.status == status
    if status == "failed":
        assert f"{round(share * n):,} of {n:,} validation answers" in result.reason
        assert "it answered 429" in result.reason, "the endpoint's words"
        assert Leaderboard([result]).winner is None


def test_unanswered_rows_of_several_tasks():
    one = Prediction(labels=np.zeros(3, int), scores=None, invalid=np.zeros(3, bool))
    lost = replace(one, unanswered=np.array([False, True, False]))
    assert unanswered_rows({"a": one, "b": one}).tolist() == [False] * 3
    assert unanswered_rows({"a": one, "b": lost}).tolist() == [False, True, False]
