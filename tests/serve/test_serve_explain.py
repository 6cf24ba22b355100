"""Words weighed by leaving them out, against the classifier's own scores."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_server import post, save_newsroom, serving

import llmembed
from serve.routes.explain import grouped, without

TEXT = "  the wheat harvest fell in week 7,\nsaid bond  dealers "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_newsroom(tmp_path_factory.mktemp("models") / "news", moods=True)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving([model], tmp_path_factory.mktemp("files")) as address:
        yield address


def test_a_weight_is_the_score_that_goes_with_the_word(server: str, model: Path) -> None:
    status, answer = post(f"{server}/explain", {"text": TEXT, "task": "topic"})
    assert status == 200
    assert answer["method"] == "leave-one-out"
    assert [TEXT[w["start"] : w["end"]] for w in answer["words"]] == TEXT.split()
    classifier = llmembed.load(model)
    column = classifier.tasks[0].classes.index(answer["label"])

    def score(text: str) -> float:
        return float(classifier.predict([text])["topic"].scores[0, column])

    assert answer["score"] == pytest.approx(score(TEXT), abs=1e-6)
    words = TEXT.split()
    for place, word in enumerate(answer["words"]):
        left = " ".join(words[:place] + words[place + 1 :])
        assert word["weight"] == pytest.approx(score(TEXT) - score(left), abs=1e-6)
    assert any(abs(word["weight"]) > 0.05 for word in answer["words"])


def test_another_class_and_another_task_can_be_asked_for(server: str) -> None:
    _, first = post(f"{server}/explain", {"text": TEXT, "task": "topic", "label": "grain"})
    _, other = post(f"{server}/explain", {"text": TEXT, "task": "topic", "label": "money"})
    weights = {w["text"]: w["weight"] for w in first["words"]}
    against = {w["text"]: w["weight"] for w in other["words"]}
    assert weights["wheat"] > 0 > against["wheat"]
    _, mood = post(f"{server}/explain", {"text": TEXT, "task": "mood"})
    assert max(mood["words"], key=lambda w: w["weight"])["text"] == "fell"


def test_long_texts_are_weighed_in_groups_within_the_limit(server: str) -> None:
    text = "corn " * 500
    status, answer = post(f"{server}/explain", {"text": text})
    assert status == 200
    assert answer["word_count"] == 500
    assert len(answer["words"]) == answer["limit"] <= 64
    covered = sum(len(word["text"].split()) for word in answer["words"])
    assert covered == 500
    assert f"{answer['limit']} groups of its words" in answer["note"]
    _, fewer = post(f"{server}/explain", {"text": text, "words": 5})
    assert len(fewer["words"]) == 5


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": "t", "label": "corn", "task": "topic"}, 422, "known are grain, ships, money"),
        ({"text": "t", "task": "tone"}, 422, "no task 'tone'"),
        ({"text": "t", "words": 0}, 422, "words"),
        ({"text": "t", "model": "gone"}, 404, "gone"),
        ({"text": "corn " * 40_000}, 422, "the limit is 8,192"),
    ],
)
def test_what_is_wrong_is_refused(server: str, body: dict, status: int, words: str) -> None:
    found, answer = post(f"{server}/explain", body)
    assert found == status
    assert words in answer["error"]


def test_a_text_without_words_is_refused(server: str) -> None:
    status, answer = post(f"{server}/explain", {"text": " \n "})
    assert status == 422
    assert "empty or white space" in answer["error"]


def test_a_small_limit_of_texts_holds(model: Path, tmp_path: Path) -> None:
    with serving([model], tmp_path, **{"limits.texts": 4}) as address:
        status, answer = post(f"{address}/explain", {"text": TEXT})
    assert (status, len(answer["words"]), answer["limit"]) == (200, 3, 3)


def test_a_limit_of_one_text_leaves_nothing_to_compare(model: Path, tmp_path: Path) -> None:
    with serving([model], tmp_path, **{"limits.texts": 1}) as address:
        status, answer = post(f"{address}/explain", {"text": TEXT})
    assert status == 424
    assert answer["error"] == "limits.texts is 1 here, and an explanation takes at least 2"


def test_what_it_took_is_told_of_both_passes(server: str) -> None:
    request = urllib.request.Request(
        f"{server}/explain",
        json.dumps({"text": "corn fell"}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        headers = response.headers
    # The text alone, then it again with "corn" and "fell" left out in turn.
    assert int(headers["x-compute-characters"]) == 9 + 9 + len("fell") + len("corn ")


def test_what_is_left_out_does_not_count_as_an_answer(model: Path, tmp_path: Path) -> None:
    with serving([model], tmp_path) as address:
        post(f"{address}/explain", {"text": TEXT})
        with urllib.request.urlopen(f"{address}/metrics") as response:
            metrics = response.read().decode()
    assert 'path="/explain"' in metrics
    assert "llmembed_answers_total{" not in metrics


def test_pieces_are_even_and_cover_all() -> None:
    places = [(i * 2, i * 2 + 1) for i in range(10)]
    assert grouped(places, 3) == [(0, 5), (6, 11), (12, 19)]
    assert grouped(places, 20) == places
    assert grouped([], 4) == []
    assert without("a bc d", 2, 4) == "a d"
    assert without("abc", 0, 3) == ""
