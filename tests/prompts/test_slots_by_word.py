"""Tags that name their words are laid on these words, and on no others."""

from __future__ import annotations

import json

import pytest

from llmembed.contract import Task
from llmembed.prompts.slot_parsing import SlotReader

SLOTS = Task(
    name="slots",
    classes=("O", "B-date", "I-date", "B-time", "I-time", "B-place", "I-place"),
    kind="tokens",
)
WAKE = "wake me up at five am this week in new york"
RIGHT = ["O", "O", "O", "O", "B-time", "I-time", "B-date", "I-date", "O", "B-place", "I-place"]
NAMED = [*zip(WAKE.split(), RIGHT, strict=True)]
SPARSE = [pair for pair in NAMED if pair[1] != "O"]


def read(answer, text=WAKE):
    reading = SlotReader(task=SLOTS).read(answer, text.split())
    if reading.why is not None:
        assert set(reading.labels) <= {-1}
        return reading.why
    return [SLOTS.classes[label] for label in reading.labels]


def objects(pairs):
    return json.dumps([{"word": word, "tag": tag} for word, tag in pairs])


FORMS = {
    "objects": objects,
    "tag first": lambda pairs: json.dumps([{"tag": t, "word": w} for w, t in pairs]),
    "pairs": lambda pairs: json.dumps([list(pair) for pair in pairs]),
    "with numbers": lambda pairs: json.dumps([[n, *pair] for n, pair in enumerate(pairs)]),
    "one object": lambda pairs: json.dumps(dict(pairs)),
    "small objects": lambda pairs: json.dumps([{word: tag} for word, tag in pairs]),
    "lines": lambda pairs: "\n".join(f"{word}: {tag}" for word, tag in pairs),
    "slashes": lambda pairs: " ".join(f"{word}/{tag}" for word, tag in pairs),
    "in a field": lambda pairs: json.dumps({"slots": dict(pairs)}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pairs", [NAMED, SPARSE, SPARSE[::-1]], ids=["all", "few", "backwards"])
def test_words_are_found_whatever_the_form_and_the_order(form, pairs):
    assert read(FORMS[form](pairs)) == RIGHT


def test_tags_of_two_words_do_not_slide_to_the_first_two():
    answer = '[{"word": "five", "tag": "B-time"}, {"word": "am", "tag": "I-time"}]'
    reading = SlotReader(task=SLOTS).read(answer, WAKE.split())
    assert [SLOTS.classes[label] for label in reading.labels] == [
        *["O"] * 4,
        *RIGHT[4:6],
        *["O"] * 5,
    ]
    assert (reading.added, reading.cut_off, reading.unknown) == (9, 0, 0)


@pytest.mark.parametrize("tag", ["B-place", "place", "I-place"])
def test_a_name_of_several_words_is_of_all_of_them(tag):
    found = read(json.dumps({"New York": tag}))
    assert found[:9] == ["O"] * 9
    assert found[9:] == (["I-place", "I-place"] if tag == "I-place" else ["B-place", "I-place"])


def test_punctuation_and_case_do_not_tell_words_apart():
    assert read('[["York.", "I-place"], ["NEW", "B-place"]]')[9:] == ["B-place", "I-place"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('[{"word": "six", "tag": "B-time"}, {"word": "am", "tag": "I-time"}]', WAKE),
        ('{"boston": "B-place", "five": "B-time"}', WAKE),
        # Which of the two is meant is not said.
        ('{"paris": "B-place"}', "from paris to paris"),
        ('[["to", "B-place"]]', "to be or not to be"),
        # More often than it stands there.
        ('[["five", "B-time"], ["five", "B-time"]]', WAKE),
        ('[["new york", "B-place"], ["york", "I-place"]]', WAKE),
        # One word in three is not named.
        ('[["wake", "O"], "O", ["five", "B-time"]]', WAKE),
    ],
)
def test_what_does_not_fit_the_words_is_invalid(answer, text):
    assert read(answer, text) == "tags that do not fit the words of the text"


def test_a_word_that_stands_twice_is_named_in_order():
    text = "from paris to paris"
    answer = [["from", "O"], ["paris", "B-place"], ["to", "O"], ["paris", "O"]]
    assert read(json.dumps(answer), text) == ["O", "B-place", "O", "O"]
    # Words outside of slots need not be told apart, nor be there.
    assert read('{"from": "O", "the": "O", "to": "O"}', "to and to") == ["O"] * 3


def test_numbers_in_place_of_words_are_positions():
    text = "on next friday"
    for start in (0, 1):
        numbered = {str(n): tag for n, tag in enumerate(["O", "B-date", "I-date"], start)}
        assert read(json.dumps(numbered), text) == ["O", "B-date", "I-date"]
