"""Prompts beside the other methods, as a user runs them: command line, real server, real model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openai_server import OpenAIServer
from tiny_llama import save_tiny_llama

from llmembed.cli import main

WORDS = {
    "grain": "wheat corn harvest crop",
    "ships": "tanker port vessel cargo",
    "money": "bank rates bonds currency",
}
ASKING = "lexical,io,zero_shot,five_shot,carp"
KEY = "sk-never-to-be-seen-0123456789"


def topic_in(text: str) -> str:
    """What someone who can read would answer."""
    found = text.split()
    return max(WORDS, key=lambda name: sum(map(found.count, WORDS[name].split())))


def reader(messages: list[dict[str, str]]) -> str:
    """Answers any of our prompts; whatever asks for no known form gets the label of its end."""
    said = messages[-1]["content"]
    text = said.rsplit("<<< text", 1)[-1] if "<<< text" in said else said.rsplit("INPUT:", 1)[-1]
    topic = topic_in(text)
    if said.rstrip().endswith("Reasoning:"):
        return f"Reasoning: the words speak of {topic}."
    if said.rstrip().endswith("Clues:"):
        if "has the label" in said:
            return "Clues: some words"
        return f"Clues: some words\nReasoning: they speak of {topic}.\nLabel: {topic}"
    return topic


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "news.csv"
    rows = ["text,label"]
    for number in range(150):
        name = list(WORDS)[number % 3]
        own = WORDS[name].split()
        rows.append(f"{own[number % 4]} and {own[(number // 4) % 4]} in week {number},{name}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def server():
    with OpenAIServer(reader, api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def words(table: Path, server: OpenAIServer, tmp_path_factory) -> list[str]:
    """What the user types, but for the command."""
    files = tmp_path_factory.mktemp("files")
    return [
        "prompting",
        "--data", str(table),
        "--local",
        "--files", str(files),
        "--backbone", "minilm",
        "generators.llm.model=scripted",
        f"generators.llm.base_url={server.url}",
        "generators.llm.machinery_only=a scripted server",
        "methods.carp.k=3",
        "methods.carp.rounds=2",
        "methods.io.k=4",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def compared(words: list[str], server: OpenAIServer, tmp_path_factory):
    """A dry run, then the run itself: what was asked before and after, and the figures."""
    folder = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        dry = ["compare", *words, "--methods", ASKING, "--dry-run"]
        assert main([*dry, "--json", str(folder / "dry.json")]) == 0
        before = len(server.calls)
        code = main(["compare", *words, "--methods", ASKING, "--json", str(folder / "board.json")])
    assert code == 0
    estimates = json.loads((folder / "dry.json").read_text())
    return before, estimates, json.loads((folder / "board.json").read_text())


def test_a_dry_run_asks_nothing_and_comes_out_above_what_is_spent(compared, server):
    before, estimates, _ = compared
    assert before == 0
    assert [each["method"] for each in estimates] == ["io", "zero_shot", "five_shot", "carp"]
    parts = [part for each in estimates for part in each["parts"].values()]
    assert sum(part["calls"] for part in parts) == len(server.billed)
    told = sum(part["prompt_tokens"] + part["completion_tokens"] for part in parts)
    assert told >= server.prompt_tokens + server.completion_tokens


def test_a_dry_run_of_scored_labels_counts_what_the_server_then_counts(table, tmp_path):
    with OpenAIServer() as server:
        words = [
            "compare", "prompting",
            "--data", str(table),
            "--local",
            "--files", str(tmp_path / "files"),
            "--methods", "lexical,io",
            "data.limit=30",
            "generators.llm.model=scripted",
            f"generators.llm.base_url={server.url}",
            "generators.llm.api_key_env=null",
            "generators.llm.scores=echo",
            "methods.io.k=3",
            "methods.io.demonstrations=random",
            "methods.io.decision=score",
            "methods.io.calibrate=true",
        ]  # fmt: skip
        dry = [*words, "--dry-run", "--json", str(tmp_path / "dry.json")]
        assert main(dry) == 0
        assert server.calls == []
        (before,) = json.loads((tmp_path / "dry.json").read_text())
        assert main(words) == 0
        said = before["parts"]["scores"]
        assert said["calls"] == len(server.billed)
        assert said["calls"] == (42 + 3) * 3, "the texts without content too"
        assert said["completion_tokens"] == server.completion_tokens
        assert said["prompt_tokens"] >= server.prompt_tokens
        assert main(dry) == 0
        (again,) = json.loads((tmp_path / "dry.json").read_text())
        assert again["parts"]["scores"]["calls"] == 0
        assert again["parts"]["scores"]["cached"] == said["calls"]


def test_the_leaderboard_shows_what_was_asked_and_never_crowns_machinery(compared):
    _, _, board = compared
    rows = {row["label"]: row for row in board["rows"]}
    asked = {name: row for name, row in rows.items() if name != "lexical"}
    assert set(asked) == {"io", "zero_shot", "five_shot", "carp"}
    for row in asked.values():
        assert row["status"] == "ok", row["status"]
        assert row["machinery_only"]
        assert row["tokens"] > 0
        assert row["cost_usd"] > 0
        assert row["invalid_rate"] == 0
        assert row["test_mean"]["mean"] == 1.0
        assert row["latency_p50_ms"] is None
    assert rows["carp"]["tokens"] > rows["zero_shot"]["tokens"]
    assert board["winner"] == "lexical"


def test_what_the_rows_bear_is_what_the_server_counted(compared, server):
    _, _, board = compared
    rows = {row["label"]: row for row in board["rows"]}
    asked = [rows[name] for name in ("io", "zero_shot", "five_shot", "carp")]
    # Texts are distinct, and so is what each method asks: validation and test, once each.
    assert sum(row["calls"] for row in asked) == len(server.billed)
    tokens = server.prompt_tokens + server.completion_tokens
    embedding = sum(r["fit_usage"]["tokens"] + r["valid_usage"]["tokens"]
                    + r["predict_usage"]["tokens"] for r in board["results"]
                    if r["label"] in ("io", "zero_shot", "five_shot", "carp"))  # fmt: skip
    assert sum(row["tokens"] for row in asked) == tokens + embedding
    (result,) = [r for r in board["results"] if r["label"] == "zero_shot"]
    assert result["fit_usage"]["calls"] == 0
    assert (result["valid_usage"]["calls"], result["predict_usage"]["calls"]) == (12, 30)
    assert rows["lexical"]["calls"] == 0


def test_again_costs_nothing_and_says_the_same(compared, words, server, tmp_path, monkeypatch):
    _, _, board = compared
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    before = len(server.calls)
    path = tmp_path / "again.json"
    assert main(["compare", *words, "--methods", "lexical,carp", "--json", str(path)]) == 0
    assert len(server.calls) == before
    again = {row["label"]: row for row in json.loads(path.read_text())["rows"]}
    first = {row["label"]: row for row in board["rows"]}
    for figure in ("tokens", "cost_usd", "test_mean"):
        assert again["carp"][figure] == pytest.approx(first["carp"][figure]), figure


def test_a_budget_fails_the_row_before_it_is_exceeded(words, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    before, calls = server.prompt_tokens + server.completion_tokens, len(server.billed)
    path = tmp_path / "budget.json"
    budget = ["generators.llm.budget_tokens=2200", "methods.zero_shot.text_kind=cable"]
    main(["compare", *words, *budget, "--methods", "lexical,zero_shot", "--json", str(path)])
    rows = {row["label"]: row for row in json.loads(path.read_text())["rows"]}
    row = rows["zero_shot"]
    assert row["status"].startswith("failed")
    assert "budget" in row["status"]
    spent = server.prompt_tokens + server.completion_tokens - before
    assert 0 < spent <= 2200
    # On validation, and on test until it failed.
    assert len(server.billed) - calls == row["calls"] > 12
    assert row["tokens"] == spent
    assert row["cost_usd"] == pytest.approx(spent * 0.002 / 1000, rel=0.01)
    said = capsys.readouterr().out
    assert f"Until then it took {row['calls']:.0f} calls" in " ".join(said.split())
    assert KEY not in said


def test_usd_counted_at_prices_nobody_set_are_said_once(words, server, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    run = ["compare", *words, "--methods", "lexical,zero_shot", "generators.llm.budget_usd=5"]
    for more in ([], ["--dry-run"]):
        main([*run, *more])
        lines = [n for n in capsys.readouterr().out.splitlines() if "default" in n]
        assert len(lines) == 1, lines
        assert "generators.llm.budget_usd" in lines[0] and "(0.002)" in lines[0]
        main([*run, *more, "prices.usd_per_1000_prompt_tokens=0.01"])
        lines = [n for n in capsys.readouterr().out.splitlines() if "at the default" in n]
        assert len(lines) == 1 and "prompt_tokens" not in lines[0].replace("budget", "")
        both = "{usd_per_1000_prompt_tokens: 0.01, usd_per_1000_completion_tokens: 0.002}"
        main([*run, *more, f"prices={both}"])
        assert "at the default" not in capsys.readouterr().out


def test_a_local_model_is_asked_and_marked(table, tmp_path, capsys):
    model = save_tiny_llama(tmp_path / "tiny-llama")
    path = tmp_path / "local.json"
    words = [
        "prompting",
        "--data", str(table),
        "--local",
        "--files", str(tmp_path / "files"),
        f"generators.llm.model={model}",
        "methods.zero_shot.decision=score",
        "methods.carp.k=2",
        "methods.carp.rounds=2",
        "methods.carp.max_answer_tokens=8",
        "methods.carp.max_rationale_tokens=8",
        "data.limit=30",
    ]  # fmt: skip
    asked = "lexical,zero_shot,carp"
    assert main(["compare", *words, "--methods", asked, "--json", str(path)]) == 0
    rows = {row["label"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["zero_shot"]["machinery_only"] and rows["carp"]["machinery_only"]
    assert rows["carp"]["tokens"] > rows["zero_shot"]["tokens"] > 0
    assert rows["carp"]["energy_kwh"] > 0
    assert "carp: machinery only" in " ".join(capsys.readouterr().out.split())


def test_a_key_given_in_place_of_its_variable_is_not_repeated(words, capsys):
    assert main(["compare", *words, f"generators.llm.api_key_env={KEY}"]) == 2
    said = capsys.readouterr().err
    assert "generators.llm.api_key_env" in said and "capitals" in said
    assert KEY not in said


def test_a_fitted_prompt_labels_files(words, server, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    saved = tmp_path / "saved"
    real = [word for word in words if "machinery_only" not in word]
    fit = ["fit", *real, "--method", "zero_shot", "--save", str(saved)]
    assert main(fit) == 0
    assert KEY not in (saved / "classifier.json").read_text()
    capsys.readouterr()
    before = len(server.calls)
    files = words[words.index("--files") + 1]
    output = tmp_path / "labels.jsonl"
    asked = ["--model", str(saved), "--data", str(table), "--output", str(output)]
    asked += ["--allow-endpoint", f"{server.url}=OPENAI_API_KEY"]
    assert main(["predict", *asked, "--files", files, "--budget-usd", "1"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["label"] for row in rows] == [topic_in(row["text"]) for row in rows]
    assert len(rows) == 150
    assert len(server.calls) - before == 150 - 42, "validation and test were asked by the fit"
    said = capsys.readouterr().out
    assert "asked in 108 calls" in said
    assert "--budget-usd: USD are counted at the default of 0.002" in said
    assert KEY not in said


def test_mistakes_are_one_sentence(words, capsys, monkeypatch):
    def refused(*more: str) -> str:
        assert main(["compare", *words, *more]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1, said
        return said[0]

    assert "no generator 'lm'; known are llm" in refused("methods.io.generator=lm")
    assert "generators.llm.modl" in refused("generators.llm.modl=x")
    assert "methods.io.style" in refused("methods.io.style=zero")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "OPENAI_API_KEY" in refused("--methods", "zero_shot")
