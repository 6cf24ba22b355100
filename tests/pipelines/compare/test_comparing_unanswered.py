"""``compare`` with an endpoint that is away for some texts, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openai_server import OpenAIServer

from llmembed.cli import main
from llmembed.experiment import load_experiment
from llmembed.generation import Message, Sampling
from llmembed.pipelines.generators import Generators

SAID = {"grain": "wheat and corn", "ships": "a tanker in port", "money": "bank rates"}


def reader(messages: list[dict[str, str]]) -> str:
    text = messages[-1]["content"].rsplit("<<< text", 1)[-1]
    return next(label for label, words in SAID.items() if words in text)


def table(path: Path) -> Path:
    names = [*SAID] * 30
    rows = [f"{SAID[name]} in week {row} of the year,{name}" for row, name in enumerate(names)]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


def test_an_incomplete_row_is_no_champion_and_the_same_command_ends_it(tmp_path, capsys):
    with OpenAIServer(reader) as server:
        words = [
            "compare",
            "prompting",
            "--methods=zero_shot",
            "--data", str(table(tmp_path / "news.csv")),
            "--local",
            "--files", str(tmp_path / "files"),
            "--seeds=1",
            "--json", str(tmp_path / "board.json"),
            "generators.llm.model=scripted",
            f"generators.llm.base_url={server.url}",
            "generators.llm.api_key_env=null",
            "generators.llm.retries=0",
            "generators.llm.concurrency=1",
        ]  # fmt: skip
        # Three calls in the middle get no answer.
        server.fail(*[""] * 4, "503", "", "503", *[""] * 6, "500")
        assert main(words) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert "zero_shot: incomplete: 2 of 7 validation questions got no answer and 1 of" in said
        assert "refused for 503" in said, "the endpoint's words"
        assert "No winner" in said and "champion" not in said
        board = json.loads((tmp_path / "board.json").read_text())
        assert board["winner"] is None
        assert board["results"][0]["status"] == "incomplete"
        before = len(server.calls)
        assert main(words) == 0
        assert len(server.calls) - before == 3, "only what is missing is asked"
        assert "champion" in capsys.readouterr().out
        (result,) = json.loads((tmp_path / "board.json").read_text())["results"]
        assert result["test"]["label"]["metrics"]["accuracy"] == 1.0
        # An answer that was garbage for a moment is not kept.
        server.fault_of = lambda _: "blank"
        fresh = [*words, "generators.llm.model=other"]
        assert main(fresh) == 1
        assert "7 of 7 validation answers to task" in " ".join(capsys.readouterr().out.split())
        server.fault_of = lambda _: ""
        assert main(fresh) == 0


@pytest.mark.parametrize(
    ("word", "expected"), [(None, "old"), ("on", "old"), ("off", "new"), ("refresh", "new")]
)
def test_the_cache_is_passed_by_in_the_words_of_the_command_line(word, expected, tmp_path):
    """``on`` and ``off`` are words to YAML, too."""
    with OpenAIServer(lambda _: "old") as server:
        overrides = [
            "generators.llm.model=scripted",
            f"generators.llm.base_url={server.url}",
            "generators.llm.api_key_env=null",
            f"runtime.files={tmp_path}",
        ]
        asked = [(Message(role="user", content="x"),)]

        def said(*more: str) -> str:
            experiment = load_experiment("prompting", overrides=[*overrides, *more])
            generator = Generators(experiment).named("llm", "methods.io.generator")
            return " ".join(answer.text for answer in generator.generate(asked, Sampling()))

        assert said() == "old"
        server.answer = lambda _: "new"
        found = said(*([f"generators.llm.cache={word}"] if word else []))
        assert found == expected
        assert said() == ("new" if word == "refresh" else "old"), "only what was renewed is kept"
