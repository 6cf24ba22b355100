"""Leaderboards of real results of small methods; choices checked on results edited by hand."""

from __future__ import annotations

import io
import json
import statistics
from dataclasses import replace

import pytest
from rich.console import Console
from small_corpora import made_up
from small_methods import FitWordVotes, Majority

from llmembed.contract import Task, Usage
from llmembed.errors import DataError
from llmembed.evaluation import Leaderboard, Result, evaluate

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def results() -> list[Result]:
    corpus = made_up(seed=0, partial="300 of 4000 training rows")
    rivals = (
        FitWordVotes(share=0.1),
        FitWordVotes(share=0.9),
        FitWordVotes(share=0.5, machinery_only=True),
        Majority(),
    )
    found = [r for method in rivals for r in evaluate(method, corpus, None, seeds=SEEDS)]
    found += evaluate(FitWordVotes(share=0.7), corpus, None, seeds=SEEDS, time_limit_seconds=-1)
    return found


def edited(result: Result, *, label: str, value: float, joules: float, **changes) -> Result:
    """``result`` under another name, with that validation accuracy and energy."""
    scores = result.valid["topic"]
    scores = replace(scores, metrics={**scores.metrics, "accuracy": value})
    usage = Usage(seconds=1.0, measured_joules={"cpu": joules})
    nothing = Usage()
    return replace(
        result,
        label=label,
        valid={"topic": scores},
        fit_usage=usage,
        predict_usage=nothing,
        **changes,
    )


def printed(board: Leaderboard, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(board)
    return file.getvalue()


def test_rows_aggregate_over_seeds(results):
    board = Leaderboard(results)
    row = next(row for row in board.rows if row.label == "word-votes 0.9")
    own = [r for r in results if r.label == "word-votes 0.9"]
    values = [r.test["topic"].value for r in own]
    assert row.test["topic"].mean == pytest.approx(statistics.fmean(values))
    assert row.test["topic"].sd == pytest.approx(statistics.stdev(values))
    assert row.test_mean == row.test["topic"]
    assert row.seeds == 3 and row.status == "ok"
    assert row.energy_kwh == pytest.approx(
        statistics.fmean(r.usage.energy_joules for r in own) / 3.6e6
    )
    assert row.interval["topic"].low == pytest.approx(
        statistics.fmean(r.intervals["topic"].low for r in own)
    )
    assert board.results_of(row) == own


def test_winner_is_chosen_among_sound_rows_on_validation(results):
    board = Leaderboard(results)
    assert board.winner.label == "word-votes 0.9"
    assert board.winner_result.label == "word-votes 0.9"
    assert board.winner_result.valid_value() == max(
        r.valid_value() for r in board.results_of(board.winner)
    )
    status = {row.label: row.status for row in board.rows}
    assert status["majority"].startswith("failed: task 'topic' is answered 'sport'")
    assert status["word-votes 0.7"].startswith("skipped: not started")
    assert [row.eligible for row in board.rows] == [True, True, False, False, False]


def test_test_scores_do_not_choose_and_stand_ins_never_win(results):
    base = results[0]
    worse_on_test = replace(
        base.test["topic"], metrics={**base.test["topic"].metrics, "accuracy": 0}
    )
    board = Leaderboard(
        [
            edited(base, label="good", value=0.8, joules=10),
            edited(base, label="best", value=0.9, joules=10, test={"topic": worse_on_test}),
            edited(base, label="an untrained model", value=0.99, joules=1, machinery_only=True),
            edited(base, label="broken", value=0.99, joules=1, status="failed", reason="x"),
        ]
    )
    assert board.winner.label == "best"


def test_equal_rows_go_to_the_one_of_less_energy(results):
    base = results[0]
    rows = [
        edited(base, label="dear", value=0.1 + 0.2, joules=100),
        edited(base, label="cheap", value=0.3, joules=50),
        edited(base, label="cheapest but worse", value=0.299, joules=1),
    ]
    assert Leaderboard(rows).winner.label == "cheap"
    assert Leaderboard(rows[::-1]).winner.label == "cheap"


def test_one_failed_seed_bars_a_row_and_a_skipped_one_does_not(results):
    base = results[0]
    seeds = [edited(base, label="m", value=0.5, joules=1, seed=seed) for seed in SEEDS]
    failed = replace(seeds[2], status="failed", reason="collapsed")
    skipped = replace(seeds[2], status="skipped", reason="no time")
    board = Leaderboard([*seeds[:2], failed])
    assert board.winner is None
    assert board.rows[0].status == "failed on 1 of 3 seeds: collapsed"
    board = Leaderboard([*seeds[:2], skipped])
    assert board.winner.status == "2 of 3 seeds"


def test_settings_tell_rows_of_one_label_apart(results):
    base = results[0]
    pair = [replace(base, settings={"c": c}) for c in (1, 2)]
    assert len(Leaderboard(pair).rows) == 2


def test_json_holds_all_and_comes_back(results):
    board = Leaderboard(results)
    data = json.loads(json.dumps(board.to_json()))
    again = Leaderboard.from_json(data)
    assert again.results == board.results
    assert again.rows == board.rows
    assert data["winner"] == "word-votes 0.9"
    assert data["rows"][0]["test"]["topic"]["mean"] == board.rows[0].test["topic"].mean


@pytest.mark.parametrize("width", [100, 120])
def test_terminal_fits_and_shows_every_figure(results, width):
    board = Leaderboard(results)
    out = printed(board, width)
    assert max(len(line.rstrip()) for line in out.splitlines()) <= width
    table = out.split("Data: ")[0]
    assert "…" not in table
    for text in ("★ word-votes 0.9", "machinery only", "failed", "skipped", "[95 % interval]"):
        assert text in table
    best = board.rows[0]
    assert f"{best.test['topic'].mean:.4f}"[1:] in table
    assert "~" in table  # estimated energy
    for text in (
        "300 of 4000 training rows",
        "whatever the text",
        "time limit",
        "an untrained model",
    ):
        assert text in " ".join(out.split())


def test_several_tasks_stand_each_and_with_their_mean(results):
    base = results[0]
    both = []
    for seed in SEEDS:
        topic = base.valid["topic"]
        other = replace(topic, task="mood", metrics={**topic.metrics, "accuracy": 0.5 + seed / 10})
        scores = {"topic": topic, "mood": other, "third": other, "fourth": other}
        both.append(replace(base, seed=seed, valid=scores, test=scores))
    board = Leaderboard(both)
    row = board.rows[0]
    assert row.test["mood"].mean == pytest.approx(0.6)
    assert row.test["mood"].sd == pytest.approx(0.1)
    assert row.test_mean.mean == pytest.approx((base.valid["topic"].value + 3 * 0.6) / 4)
    out = printed(board, 100)
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 100
    assert "mood" in out and ".6000" in out and "±.1000" in out and "…" not in out
    assert "test mood accuracy ± sd" in board.to_markdown()


def test_markdown_has_one_cell_for_each_head(results):
    board = Leaderboard(results)
    lines = [line for line in board.to_markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(board.rows)
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert "**word-votes 0.9**" in lines[2]
    assert "300 of 4000 training rows" in board.to_markdown()


def test_two_corpora_are_refused(results):
    with pytest.raises(DataError, match="one corpus"):
        Leaderboard([results[0], replace(results[0], digest="other")])


def test_a_board_of_failures_only(results):
    corpus = made_up(seed=0)
    tasks = (Task(name="topic", classes=corpus.tasks[0].classes, kind="multi"),)
    failed = evaluate(FitWordVotes(), replace(corpus, tasks=tasks), None, seeds=[0])
    board = Leaderboard(failed)
    assert board.winner is None and board.winner_result is None
    assert "answers one label a text" in " ".join(printed(board, 100).split())
    assert "No winner" in board.to_markdown()
    assert Leaderboard([]).rows == ()
    assert printed(Leaderboard([]), 100)
