"""The response cache and the budget by themselves."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llmembed.contract import Usage
from llmembed.errors import BudgetError, StoreError
from llmembed.generation import Answer, Budget, Message, ResponseCache, Sampling
from llmembed.generation.cache import Given, answer_key, score_key
from llmembed.metering import Prices

PROMPT = (Message(role="user", content="héllo \ud800"),)  # half a character, as JSON allows
WRITER = """
import sys
from llmembed.generation import Answer, ResponseCache
from llmembed.generation.cache import Given
from llmembed.contract import Usage
path, who = sys.argv[1:]
cache = ResponseCache(path)
for i in range(100):
    answer = Answer(text=who, finish="stop", prompt_tokens=1, completion_tokens=1)
    cache.put("m", {f"{who}-{i}": Given(answer=answer, usage=Usage(seconds=1.0)),
                    f"both-{i}": Given(answer=answer, usage=Usage())})
"""


def test_keys_tell_apart_what_matters() -> None:
    model = {"model": "m", "host": "h"}
    plain = answer_key(model, PROMPT, Sampling())
    assert plain == answer_key({"host": "h", "model": "m"}, PROMPT, Sampling())
    others = {
        answer_key({**model, "host": "i"}, PROMPT, Sampling()),
        answer_key(model, (*PROMPT, *PROMPT), Sampling()),
        answer_key(model, (Message(role="system", content=PROMPT[0].content),), Sampling()),
        answer_key(model, PROMPT, Sampling(stop=("a",))),
        answer_key(model, PROMPT, Sampling(seed=1)),
        answer_key(model, PROMPT, Sampling(logprobs=True)),
        score_key(model, PROMPT, ["a", "b"]),
        score_key(model, PROMPT, ["b", "a"]),
        score_key(model, PROMPT[0].content, ["a", "b"]),
    }
    assert len({plain, *others}) == 10


def test_answers_come_back_whole_and_failures_are_not_kept(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "new" / "answers.sqlite")
    usage = Usage(seconds=1.5, estimated_joules={"cpu": 3.0}, prompt_tokens=7, calls=1)
    good = Answer(
        text="é\n",
        finish="length",
        prompt_tokens=7,
        completion_tokens=2,
        logprobs=(("é", -0.5), ("\n", -1.25)),
    )
    bad = Answer(text="", finish="failed", prompt_tokens=0, completion_tokens=0, reason="no")
    cache.put("m", {"a": Given(answer=good, usage=usage), "b": Given(answer=bad, usage=usage)})
    found = ResponseCache(cache.path).get(["a", "b", "c", *(str(i) for i in range(1200))])
    assert [*found] == ["a"]
    assert found["a"].usage == usage
    assert found["a"].answer.cached and found["a"].answer.logprobs == good.logprobs
    assert found["a"].answer.text == good.text


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), who]) for who in ("x", "y", "z")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    cache = ResponseCache(path)
    assert cache.count() == 400
    assert len(cache.get([f"y-{i}" for i in range(100)])) == 100


def test_what_is_no_cache_is_said_so(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("these are my notes, not a database" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt can't be used"):
        ResponseCache(other).get(["a"])
    assert other.read_text().startswith("these are my notes")
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="of version 99"):
        ResponseCache(newer).count()


def test_a_budget_holds_under_threads_and_is_spent_to_the_last_token() -> None:
    budget = Budget(tokens=1000)
    refused = []

    def spend() -> None:
        for _ in range(10):
            try:
                held = budget.reserve(6, 4)
            except BudgetError:
                refused.append(1)
            else:
                budget.settle(held, prompt_tokens=6, completion_tokens=4)

    threads = [threading.Thread(target=spend) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled = budget.spending.settled
    assert settled.prompt_tokens + settled.completion_tokens == 1000
    assert len(refused) == 320 - 100


def test_reservations_end_in_one_of_three_ways() -> None:
    prices = Prices(usd_per_1000_prompt_tokens=1.0, usd_per_1000_completion_tokens=2.0)
    budget = Budget(usd=0.1, prices=prices)
    settled, released, kept = (budget.reserve(10, 10) for _ in range(3))
    with pytest.raises(BudgetError, match=r"may cost 0\.030000 USD, but 0\.090000"):
        budget.reserve(10, 10)
    budget.settle(settled, prompt_tokens=5, completion_tokens=0)
    budget.release(released)
    budget.keep(kept)
    assert budget.spent_usd == pytest.approx(0.005 + 0.030)
    assert budget.spending.reserved == Usage()
    assert budget.spending.unconfirmed.calls == 1
    for _ in range(2):
        budget.reserve(10, 10)
