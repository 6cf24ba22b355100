"""A disagreement on a real run of a real MLflow, in the stored leaderboard and shown again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from small_corpora import made_up
from small_methods import FitWordVotes
from test_shift import figures, other_words

from llmembed.cluster import LocalRuntime
from llmembed.evaluation import Leaderboard, evaluate
from llmembed.experiment import load_experiment
from llmembed.pipelines.compare import report
from llmembed.pipelines.compare.disagreeing import with_disagreement
from llmembed.pipelines.compare.recording import LeaderboardFile
from llmembed.pipelines.methods import Assembler
from llmembed.tracking import Tracking


def test_the_run_the_file_and_the_report_tell_of_it(tmp_path, capfd):
    corpus = made_up(seed=0, train=900, held=300)
    moved = replace(corpus, test=other_words(corpus.test))
    [result] = evaluate(FitWordVotes(share=0.9), moved, None, seeds=(0,))
    quiet = Leaderboard([replace(result, method="lexical")])
    loud = figures(quiet, valid=0.815, test=0.544)
    experiment = load_experiment("compare", changes={"runtime.local": True}, only=["lexical"])
    assembler = Assembler(experiment, drop_unreadable=True)
    tracking, runtime = Tracking(None, "shift", files=tmp_path), LocalRuntime(tmp_path)
    with tracking.run("quiet") as run:
        assert with_disagreement(quiet, moved, assembler, runtime, run) is quiet
    with tracking.run("loud") as run:
        told = with_disagreement(loud, moved, assembler, runtime, run)
    said = told.disagreement
    assert said.shift.embeddings is None  # lexical reads none
    kept = tracking.client.get_run(run.id).data
    assert kept.tags["llmembed.valid_and_test_disagree"] == said.summary
    assert kept.metrics == pytest.approx(said.figures)
    stored = LeaderboardFile.new(str(tmp_path), "shift")
    stored.write(told)
    report(None, files=str(tmp_path), json_path=str(tmp_path / "again.json"))
    shown = " ".join(capfd.readouterr().out.split())
    for line in said.lines():
        assert " ".join(line.split()) in shown
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["disagreement"] == json.loads(json.dumps(said.to_json()))
