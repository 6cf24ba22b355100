"""Hard answers: what they are read as, and which are not read at all."""

from __future__ import annotations

import math

import pytest

from llmembed.contract import Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.prompts.parsing import LabelReader
from llmembed.prompts.question import Question
from llmembed.prompts.slot_parsing import SlotReader
from llmembed.prompts.templates import read_template
from llmembed.prompts.verbalisers import NAMES, names_of
from llmembed.prompts.worked_answers import label_probability, label_text

R8 = Task(name="label", classes=tuple(NAMES["r8"]["label"]))
READER = LabelReader(task=R8, names=names_of(R8, benchmark="r8"))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("earn", "earn"),
        ("Earnings", "earn"),
        (' "EARNINGS". ', "earn"),
        ("**earnings**\n\nThe company reports a profit and ships grain.", "earn"),
        ("Label: earnings", "earn"),
        ("The label is: earnings because profits rose", "earn"),
        ("Label:\n\nearnings\n\nText: other\nLabel: grain", "earn"),
        ('{"label": "earn"}', "earn"),
        ('{"label": "earnings", "why": "not grain"}', "earn"),
        ("{'answer': 'crude',}", "crude"),
        ('Sure!\n```json\n{"category": "Foreign Exchange"}\n```', "money-fx"),
        ('{"label": "ear', "earn"),
        ("['acq']", "acq"),
        ("money fx", "money-fx"),
        ("MONEY_FX", "money-fx"),
        ("foreign ex", "money-fx"),
        ("tra", "trade"),
        ("It is not earnings but acquisitions.", "acq"),
        ("It isn't acquisitions. It's shipping.", "ship"),
        ("earnings (though acquisitions are mentioned)", "earn"),
        ("1. grain", "grain"),
        ("- grain", "grain"),
        ("The text deals with crude oil prices.", "crude"),
        ("<think>trade, or ship?</think>\ngrain", "grain"),
        ("Acquisitions are named, trade too. Answer: shipping.", "ship"),
        ("interest rates", "interest"),
        ("interest", "interest"),
        ("Okay, trade, perhaps.\n</think>\nearnings", "earn"),
        ("<think>ship?</think>Hm, trade.</think>\n\nLabel: earnings", "earn"),
        ("earnings - not acquisitions", "earn"),
        ("- Trade: yes\n- earnings: no", "trade"),
        ("- Trade: no\n- earnings: yes", "earn"),
        ("The text tells of profits.\nLabel: earn", "earn"),
    ],
)
def test_read(answer, label):
    reading = READER.read(answer)
    assert reading.why is None
    assert R8.classes[reading.label] == label


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("<think>grain, surely, but let me", "empty"),
        ("I do not know", "no label"),
        ("e", "no label"),
        ("acq or earn", "could mean"),
        ("acquisitions, earnings", "could mean"),
        ("grain / shipping", "could mean"),
        ("trade talks about shipping", "could mean"),
        ("not earnings", "no label"),
        ("earningsgrain", "no label"),
        ("learn", "no label"),
        ('{"label": "sport"}', "no label"),
        ('{"label": null}', "no label"),
        ("trade\nearnings", "could mean"),
        ("1. trade\n2. earnings", "could mean"),
        ("trade: 0.2\nearnings: 0.8", "could mean"),
        ("trade? No.", "no label"),
        ("trade is not the topic", "no label"),
        ("Okay, trade.\n</think>\n", "empty"),
        ("They earn well", "no label"),
        ("Label: grain\nLabel is trade", None),
    ],
)
def test_not_read(answer, why):
    reading = READER.read(answer)
    if why is None:
        assert R8.classes[reading.label] == "grain", "the first line counts"
        return
    assert reading.label == -1
    assert why in reading.why


def test_dotted_names_and_their_beginnings():
    task = Task(name="topic", classes=tuple(NAMES["20ng"]["topic"]))
    reader = LabelReader(task=task, names=task.classes)
    said = {
        "comp.sys.ibm": "comp.sys.ibm.pc.hardware",
        "COMP.WINDOWS.X": "comp.windows.x",
        "This is rec.autos. The": "rec.autos",
        "talk.politics.misc: various": "talk.politics.misc",
    }
    for answer, label in said.items():
        assert task.classes[reader.read(answer).label] == label
    for answer in ("comp.sys", "comp", "talk.politics", "xrec.autos", "rec.autos.tech"):
        assert reader.read(answer).label == -1, answer


def test_numbers_as_labels():
    task = Task(name="stars", classes=("-1", "0", "1", "10"))
    reader = LabelReader(task=task, names=task.classes)
    for answer, label in (("-1", 0), ("0.", 1), ("Label: 1", 2), ('{"stars": 10}', 3), ("10", 3)):
        assert reader.read(answer).label == label, answer
    assert reader.read("1.5").label == -1


MOOD = Task(name="sentiment", classes=("0", "1"))
MOODS = LabelReader(task=MOOD, names=("negative", "positive"))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("1. negative", 0),
        ("0) positive", 1),
        ("1: negative", 0),
        ("1.\nnegative", 0),
        ("Label: 1. negative", 0),
        ("Sentiment: 0 (negative)", 0),
        ("1", 1),
        ("0.", 0),
        ("Label: 1", 1),
        ("It is glad.\nLabel: 1", 1),
        ('{"sentiment": 1}', 1),
        ("positive? No, negative", 0),
        ("positive or negative", -1),
        ("positive?\nnegative!", -1),
        ("It holds 1 joke", -1),
        ("1 of 2 critics liked it", -1),
    ],
)
def test_a_number_that_has_a_name_counts_only_alone(answer, label):
    assert MOODS.read(answer).label == label


def test_names_that_cant_be_told_apart_are_refused():
    with pytest.raises(ConfigError, match="can't be told apart"):
        LabelReader(task=Task(name="t", classes=("a-b", "a_b")), names=("a-b", "a_b"))
    # One class called as the other is written would make every answer doubtful.
    with pytest.raises(ConfigError, match="can't be told apart"):
        LabelReader(task=Task(name="t", classes=("cat", "dog")), names=("dog", "cat"))


SLOTS = Task(name="slots", classes=("O", "B-date", "I-date", "B-time", "I-time"), kind="tokens")


@pytest.mark.parametrize(
    ("answer", "tags", "text"),
    [
        ('["O", "B-date", "I-date"]', "O B-date I-date", "on next friday"),
        ("Here: ['O', 'Other', 'b_DATE']", "O O B-date", "on next friday"),
        ("O B-date O", "O B-date O", "on next friday"),
        ("[O, B-date, I-date]", "O B-date I-date", "on next friday"),
        ('["other", "date", "date"]', "O B-date I-date", "on next friday"),
        ('["date", "time", "date"]', "B-date B-time B-date", "on next friday"),
        ([["wake", "O"], ["at", "B-time"], ["nine", "I-time"]], "O B-time I-time", "wake at nine"),
        ('[{"word": "a", "tag": "O"}, {"word": "b", "tag": "B-time"}, "O"]', "O B-time O", "a b c"),
        ("wake: O\non: B-date\nfriday: I-date", "O B-date I-date", "wake on friday"),
        ("wake/O on/B-date friday/I-date", "O B-date I-date", "wake on friday"),
        ('{"slots": ["O", "O", "B-date"]}', "O O B-date", "on next friday"),
    ],
)
def test_tags_read(answer, tags, text):
    reading = SlotReader(task=SLOTS).read(answer, text.split())
    assert reading.why is None
    assert " ".join(SLOTS.classes[label] for label in reading.labels) == tags
    assert (reading.added, reading.cut_off, reading.unknown) == (0, 0, 0)


def test_too_few_too_many_and_unknown_tags_are_counted():
    reader = SlotReader(task=SLOTS)
    few = reader.read('["B-date"]', ["on", "next", "friday"])
    assert (few.labels, few.added) == ((1, 0, 0), 2)
    many = reader.read('["B-date", "O", "O", "O", "O"]', ["on", "next", "friday"])
    assert (many.labels, many.cut_off) == ((1, 0, 0), 2)
    strange = reader.read('["B-date", "B-colour", "O"]', ["on", "next", "friday"])
    assert (strange.labels, strange.unknown) == ((1, -1, 0), 1)


@pytest.mark.parametrize("answer", ["", "I can't do that.", "I think the date is friday", None, 7])
def test_no_tags(answer):
    reading = SlotReader(task=SLOTS).read(answer, ["on", "friday"])
    assert reading.labels == (-1, -1)
    assert reading.why


def test_tags_without_an_outside_are_refused():
    with pytest.raises(UnsupportedError, match="no tag O"):
        SlotReader(task=Task(name="s", classes=("B-x", "I-x"), kind="tokens"))


INTENT = Task(name="intent", classes=("alarm_set", "play_music"))
BOTH = Question(
    tasks=(INTENT, SLOTS),
    names={"intent": INTENT.classes, "slots": SLOTS.classes},
    kind="text",
    template=read_template("tasks"),
)


@pytest.mark.parametrize(
    "answer",
    [
        '{"intent": "alarm_set", "slots": ["O", "B-date"]}',
        'Output: ```json\n{"Intent": "Alarm set", "SLOTS": "O B-date"}\n```\nIs it {right}?',
        "{'slots': ['O', 'date',], 'intent': 'alarm_set'}",
        '{"intent": "alarm_set", "slots": ["O", "B-date"',
        'First {"a": 1}, then {"intent": "alarm_set", "slots": {"on": "O", "friday": "B-date"}}',
    ],
)
def test_several_tasks_from_one_object(answer):
    found = BOTH.read(answer, ["on", "friday"])
    assert found["intent"].label == 0
    assert found["slots"].labels == (0, 1)


def test_one_field_missing_leaves_the_other():
    found = BOTH.read('{"slots": ["O", "O"]}', ["on", "friday"])
    assert found["slots"].why is None
    assert found["intent"].label == -1
    assert "lacks" in found["intent"].why
    assert all(part.why for part in BOTH.read("nothing", ["on", "friday"]).values())


WORKED = "profit; dividend\nReasoning: Profit speaks for earnings, not grain.\nLabel: earnings"


def test_a_worked_answer_ends_in_its_first_label():
    assert label_text(WORKED) == "earnings"
    assert label_text(WORKED + "\n\nText: x\nClues: y\nReasoning: z\nLabel: grain") == "earnings"
    assert label_text("**Reasoning:** so\n**Label:** earn") == "earn"
    assert label_text("clues, reasoning: so it is. Label: grain") == "grain"
    assert label_text("no cue at all") == "no cue at all"


CARP = Question(
    tasks=(R8,),
    names={"label": names_of(R8, benchmark="r8")},
    kind="text",
    template=read_template("carp_answer"),
)


def test_a_worked_answer_cut_before_its_label_has_none():
    for answer in (
        "trade; tariffs\nReasoning: these speak for acquisitions of firms, so",
        "trade; tariffs",
        "trade\nReasoning: so\nLabel:",
    ):
        (reading,) = CARP.read(answer, ()).values()
        assert (reading.label, reading.why) == (-1, "no label line"), answer
    for answer in ("Trade.", WORKED.replace("earnings", "trade"), "grain\n</think>\n**trade**"):
        (reading,) = CARP.read(answer, ()).values()
        assert R8.classes[reading.label] == "trade", answer


def test_the_probability_of_a_label_is_not_that_of_one_thought_of():
    tokens = [("Label: grain", -4.0), ("\n</think>", -1.0), ("Reasoning: so\nLabel:", -1.0)]
    tokens += [(" grain", math.log(0.5))]
    assert label_probability(tokens, ["grain"]) == pytest.approx(0.5)


def test_the_labels_probability_is_that_of_its_own_tokens():
    tokens = [("Reasoning: so", -5.0), ("\nLabel", -1.0), (":", -0.1)]
    tokens += [(" earn", math.log(0.5)), ("ings", math.log(0.8)), (".", -3.0), ("\nmore", -2.0)]
    assert label_probability(tokens, ["earnings", "earn"]) == pytest.approx(0.4)
    assert label_probability(None, ["earn"]) is None
    assert label_probability([("hm", -1.0)], ["earn"]) is None
