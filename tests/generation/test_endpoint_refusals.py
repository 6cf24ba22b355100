"""The endpoint generator against answers that are none: refused texts, failures in good clothes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ask_program import prompts
from endpoint_asking import ask
from openai_faults import WORDS
from openai_server import OpenAIServer

from llmembed.contract import Usage
from llmembed.errors import NoAnswerError, UserError
from llmembed.generation import Message, ResponseCache, Sampling
from llmembed.generation.building import build_generator
from llmembed.generation.cache import Given
from llmembed.generation.refusals import words_of
from llmembed.generation.request import Answer


def texts(*words: str):
    return [(Message(role="user", content=word),) for word in words]


def bombs(fault: str):
    return lambda messages: fault if "bomb" in messages[-1]["content"] else ""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("filtered", WORDS["filtered"]),
        ("long", WORDS["long"]),
        ("refusal", WORDS["refusal"]),
        ("filter", "content_filter"),
        ("tool", "called a tool"),
    ],
)
def test_one_refused_text_is_its_own_failure(fault: str, words: str, tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    asked = texts("one", "a bomb", "two", "three")
    with OpenAIServer(fault_of=bombs(fault)) as server:
        # The refused one is the first that is answered, and the last.
        for concurrency in (1, 4):
            generator = ask(server, cache=cache, concurrency=concurrency)
            found = generator.generate([asked[1], *asked], Sampling(seed=concurrency))
            assert [a.text for a in found] == ["", "one", "", "two", "three"]
            assert found[0].finish == "refused" and words in (found[0].reason or "")
            assert [call.fault for call in server.calls].count(fault) == 1, "not asked again"
            server.calls.clear()
            assert generator.budget.spending.unconfirmed.calls == 0
        assert cache.count() == 2 * 3, "a refusal is not kept"


def test_an_unknown_400_stops_the_run_only_before_anything_was_answered() -> None:
    with OpenAIServer(fault_of=bombs("400")) as server:
        generator = ask(server, concurrency=1)
        with pytest.raises(UserError, match=r"refuses the request \(status 400\): refused for 400"):
            generator.generate(texts("a bomb", "one"), Sampling())
        found = ask(server, concurrency=1).generate(texts("one", "a bomb", "two"), Sampling())
        assert [a.finish for a in found] == ["stop", "refused", "stop"]
        # Where no other text is let through any more it is not the text.
        generator = ask(server, concurrency=1, give_up_after=3)
        with pytest.raises(UserError, match="status 400"):
            generator.generate(texts("one", *(f"bomb {n}" for n in range(9))), Sampling())
        assert len(server.calls) == 1 + 3 + 4


@pytest.mark.parametrize("fault", ["filtered", "refusal"])
def test_refusals_of_the_first_texts_stop_the_run(fault: str, tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    many = texts(*(f"bomb {n}" for n in range(9)))
    with OpenAIServer(fault_of=bombs(fault)) as server:
        generator = ask(server, concurrency=1, give_up_after=4, cache=cache)
        with pytest.raises(UserError, match="refuses the first 4 prompts") as caught:
            generator.generate(many, Sampling())
        assert WORDS[fault] in str(caught.value)
        assert len(server.calls) == 4
        # One that was answered tells that it is the texts; also an answer that was kept.
        ask(server, cache=cache).generate(texts("one"), Sampling())
        generator = ask(server, concurrency=1, give_up_after=4, cache=cache)
        found = generator.generate([*texts("one"), *many], Sampling())
        assert [a.finish for a in found] == ["stop", *["refused"] * 9]


@pytest.mark.parametrize(("fault", "tries"), [("error", 3), ("error200", 3), ("blank", 1)])
def test_garbage_of_a_moment_is_not_kept(fault: str, tries: int, tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    with OpenAIServer() as server:
        generator = ask(server, retries=2, concurrency=1, cache=cache)
        server.fail(*[fault] * tries)
        (answer,) = generator.generate(prompts(1), Sampling())
        assert (answer.text, answer.finish) == ("", "stop" if fault == "blank" else "failed")
        assert len(server.calls) == tries and cache.count() == 0
        if fault != "blank":
            assert WORDS[fault] in (answer.reason or "")
        assert generator.generate(prompts(1), Sampling())[0].text == "answer 0"
        assert len(server.calls) == tries + 1 and cache.count() == 1


def test_the_same_failure_of_many_prompts_is_one_line(caplog) -> None:
    with OpenAIServer() as server:
        server.fail(*["500", "500", "503", "500", "503"])
        ask(server, retries=0, concurrency=1).generate(prompts(5), Sampling())
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [("500" in line, "503" in line) for line in warned] == [(True, False), (False, True)]


def test_a_page_of_html_is_quoted_by_its_words() -> None:
    page = (
        "<html>\n<head><style>p {}</style><title>503 Away</title></head><body><b>nginx</b></html>"
    )
    assert words_of(page) == "503 Away nginx"
    assert words_of({"error": {"message": "a < b and c > d"}}) == "a < b and c > d"


def test_an_error_of_status_200_is_told_where_the_run_ends() -> None:
    with (
        OpenAIServer(fault_of=lambda _: "error200") as server,
        pytest.raises(NoAnswerError, match=WORDS["error200"]),
    ):
        ask(server, retries=0, give_up_after=2).generate(prompts(4), Sampling())


def test_a_refused_score_is_told_from_one_that_never_came(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    asked = texts("one", "a bomb", "two")
    with OpenAIServer(fault_of=lambda text: "filtered" if "bomb" in text else "") as server:
        generator = ask(server, scores="echo", retries=0, concurrency=1, cache=cache)
        server.fail("", "", "", "", "", "500")  # bomb's own come third and fourth
        server.faults[2] = server.faults[3] = "filtered"
        scores = generator.score(asked, ["earn", "ship"])
        assert np.isfinite(scores[0]).all() and np.isneginf(scores[1]).all()
        assert np.isnan(scores[2]).tolist() == [False, True]
        before = len(server.calls)
        generator.score(asked, ["earn", "ship"])
        assert len(server.calls) - before == 3, "what was refused or never came is asked again"


def test_the_cache_is_passed_by_or_renewed(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with OpenAIServer(lambda _: "old") as server:
        described = {"kind": "endpoint", "model": "m", "base_url": server.url, "api_key_env": None}

        def texts_of(**more: object) -> list[str]:
            generator = build_generator({**described, **more})
            found = [*generator.generate(prompts(2), Sampling())]
            found += generator.generate(prompts(2), Sampling())
            return [answer.text for answer in found]

        assert texts_of(cache=str(path)) == ["old"] * 4 and len(server.calls) == 2
        server.answer = lambda _: "new"
        assert texts_of(cache=str(path)) == ["old"] * 4 and len(server.calls) == 2
        assert texts_of() == ["new"] * 4 and len(server.calls) == 6
        # Once a run, not at every call of it.
        assert texts_of(cache=str(path), refresh=True) == ["new"] * 4 and len(server.calls) == 8
        assert texts_of(cache=str(path)) == ["new"] * 4 and len(server.calls) == 8


def test_an_empty_answer_of_an_earlier_version_is_written_over(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    columns = "'k', 'm', ' \n', 'stop', 1, 0, NULL, '{}', 0"
    with cache._open() as connection, connection:
        connection.execute(f"INSERT INTO answers VALUES ({columns})")
    assert cache.get(["k"]) == {}
    answer = Answer(text="earn", finish="stop", prompt_tokens=1, completion_tokens=1)
    cache.put("m", {"k": Given(answer=answer, usage=Usage())})
    assert cache.get(["k"])["k"].answer.text == "earn"
    later = Answer(text="ship", finish="stop", prompt_tokens=1, completion_tokens=1)
    cache.put("m", {"k": Given(answer=later, usage=Usage())})
    assert cache.get(["k"])["k"].answer.text == "earn", "one that is kept stays"
