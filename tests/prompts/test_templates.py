"""Filled templates of every variant, and what is wrong with a user's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scripted_generator import Scripted, asked_text, whole

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.prompts.fitting import fit_prompts
from llmembed.prompts.question import Question, variant_of
from llmembed.prompts.templates import FORMS, PROMPTS, parse_template, read_template
from llmembed.prompts.verbalisers import KINDS, NAMES, kind_of, names_of

TOPIC = Task(name="topic", classes=tuple(NAMES["20ng"]["topic"]))
ROOT = Task(name="root", classes=tuple(NAMES["20ng"]["root"]))
INTENT = Task(name="intent", classes=("alarm_set", "play_music"))
SLOTS = Task(name="slots", classes=("O", "B-date", "I-date", "B-time"), kind="tokens")
REQUESTS = Examples(
    texts=["wake me on next friday", "play {jazz}"],
    labels={
        "intent": np.array([0, 1]),
        "slots": np.array([0, 0, 0, 1, 2, 0, 0]),
    },
    words=[["wake", "me", "on", "next", "friday"], ["play", "{jazz}"]],
)


def ask(*tasks: Task, variant=None, benchmark=None) -> Question:
    return Question(
        tasks=tasks,
        names={
            t.name: t.classes if t.kind == "tokens" else names_of(t, benchmark=benchmark)
            for t in tasks
        },
        kind=kind_of(benchmark),
        template=read_template(variant or variant_of(tasks)),
    )


def test_five_shot_20ng_has_every_part_in_order():
    question = ask(TOPIC, benchmark="20ng")
    train = Examples(texts=[f"post {i}" for i in range(5)], labels={"topic": np.arange(5)})
    blocks = [question.block(train, row) for row in range(5)]
    prompt = question.prompt("From: someone\nSubject: {labels} {x} stay", blocks)
    assert [message.role for message in prompt] == ["system", "user"]
    text = whole(prompt)
    for name in NAMES["20ng"]["topic"].values():
        assert f"- {name}\n" in text
    places = [
        text.index(part)
        for part in (
            "newsgroup post",
            "- atheism",
            "<<< examples",
            "Text: post 0\nLabel: atheism",
            "Text: post 4\nLabel: Mac hardware",
            ">>> examples",
            "Write the label only",
            "your turn",
            "<<< text\nFrom: someone\nSubject: {labels} {x} stay\n>>> text",
        )
    ]
    assert places == sorted(places)
    assert text.endswith("\nLabel:")
    assert text.count("<<< ") == text.count(">>> ") == 2


@pytest.mark.parametrize("variant", FORMS)
def test_markers_are_closed_and_nothing_is_left_unfilled(variant):
    tasks = {"tasks": (INTENT, SLOTS), "slots": (SLOTS,)}.get(variant, (INTENT,))
    question = ask(*tasks, variant=variant)
    more = {"answer": "alarm_set", "clues": "wake me"}
    block = question.block(REQUESTS, 0, clues="wake", reasoning="so it is an alarm")
    for blocks in ((), (block, block)) if FORMS[variant].with_examples else ((),):
        text = whole(question.prompt("play {jazz}", blocks, **more))
        assert text.count("<<< ") == text.count(">>> ") == 1 + bool(blocks)
        assert re.findall(r"\{\w+\}", text) == ["{jazz}"]
        assert "\n\n\n" not in text
        assert text.rstrip().endswith(":")
        assert text.count("wake me on next friday") == len(blocks)


def test_without_demonstrations_no_word_of_examples():
    assert "example" not in whole(ask(INTENT).prompt("hello")).lower()


def test_several_tasks_are_one_object_with_fields_named_after_them():
    question = ask(INTENT, SLOTS)
    text = whole(question.prompt("x y", [question.block(REQUESTS, 0)]))
    shown = json.loads(text.partition("Output: ")[2].splitlines()[0])
    assert shown == {"intent": "alarm_set", "slots": ["O", "O", "O", "B-date", "I-date"]}
    assert '- "intent": one of these labels: "alarm_set", "play_music"' in text
    assert '"date", "time"' in text
    assert text.endswith("Output:")


def test_slots_tell_the_number_of_words():
    question = ask(SLOTS)
    text = whole(question.prompt("play jazz at nine", [question.block(REQUESTS, 0)]))
    assert 'Slots: ["O", "O", "O", "B-date", "I-date"]' in text
    assert "which has 4 words" in text
    assert "- date\n- time\n" in text
    assert text.endswith("Slots:")


def test_carp_shows_text_clues_reasoning_label_and_asks_for_the_same():
    question = ask(INTENT, variant="carp_answer")
    block = question.block(REQUESTS, 1, clues="play; jazz", reasoning="Jazz is music.")
    text = whole(question.prompt("sing", [block]))
    shown = "Text: play {jazz}\nClues: play; jazz\nReasoning: Jazz is music.\nLabel: play_music"
    assert shown in text
    assert text.endswith("Clues:")


def test_the_rationale_prompts_show_the_gold_label():
    clues = whole(ask(INTENT, variant="carp_clues").prompt("sing", (), answer="play_music"))
    assert "has the label play_music" in clues
    why = ask(INTENT, variant="carp_reasoning").prompt("s", (), answer="play_music", clues="sing")
    assert "Clues: sing\nLabel: play_music" in whole(why)


def test_a_template_of_ones_own(tmp_path: Path):
    file = tmp_path / "mine.txt"
    file.write_text(
        "my own\n== examples ==\n{blocks}\n== example ==\n{text} => {answer}\n"
        "== user ==\n{labels}\n{examples}\nNow: {text} =>\n== stop ==\n\\n\n"
    )
    template = read_template("label", file)
    assert template.stop == ("\n",)
    (message,) = template.fill({"labels": "a, b", "text": "t", "kind": ""}, [])
    assert message.content == "a, b\nNow: t =>"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{labels}", "{lables}"), "did you mean {labels}"),
        (("{labels}", ""), "must hold {labels}"),
        (("{examples}", ""), "must hold {examples}"),
        (("== user ==", "== usr =="), "part 'usr'"),
        (("{blocks}", "none"), "must hold {blocks} in examples"),
        (("Label: {answer}", "Label:"), "must hold {answer} in example"),
        (("{text}\n>>> text\n\nLabel:", "{text}"), "ends with {text}"),
        (("== example ==", "== system =="), "twice"),
    ],
)
def test_a_bad_template_is_answered_by_one_sentence(change, said):
    written = (PROMPTS / "label.txt").read_text()
    assert change[0] in written
    changed = written.replace(*change)
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        parse_template("label", changed, "mine.txt")
    assert "mine.txt" in str(error.value)


def test_a_file_that_is_not_there_and_one_without_parts(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't read the prompt template"):
        read_template("label", tmp_path / "none.txt")
    with pytest.raises(ConfigError, match="has no parts"):
        parse_template("label", "just {text}")


def test_several_labels_a_text_are_refused():
    with pytest.raises(UnsupportedError, match="'tags'"):
        variant_of([Task(name="tags", classes=("a", "b"), kind="multi")])


def test_names_are_one_to_one_and_belong_to_the_data():
    r8 = Task(name="label", classes=("acq", "earn", "unheard-of"))
    assert names_of(r8, benchmark="r8") == ("acquisitions", "earnings", "unheard-of")
    own = {"acq": "takeovers"}
    assert names_of(r8, benchmark="r8", own=own) == ("takeovers", "earnings", "unheard-of")
    with pytest.raises(ConfigError, match="both called"):
        names_of(r8, own={"acq": "Earn"})
    with pytest.raises(ConfigError, match="no label 'aqc'; did you mean 'acq'"):
        names_of(r8, own={"aqc": "takeovers"})


@pytest.mark.parametrize("benchmark", NAMES)
def test_every_benchmarks_names_are_readable_by_the_parser(benchmark):
    for name, names in NAMES[benchmark].items():
        task = Task(name=name, classes=tuple(names))
        question = ask(task, benchmark=benchmark)
        for label, (raw, readable) in enumerate(names.items()):
            for answer in (raw, readable, readable.upper() + "."):
                assert question.read(answer, 1)[name].label == label, answer
    assert benchmark in KINDS


def blocks_of(count: int) -> list[str]:
    return [f"block{i} a b c d" for i in range(count)]


def build(row, text, blocks):
    question = ask(INTENT)
    return question.prompt(text, [{"text": b, "answer": "alarm_set"} for b in blocks])


def test_the_farthest_demonstration_goes_first_and_the_text_stays():
    free = Scripted(rule=lambda *_: "")
    texts = ["the text of the first", "a"]
    whole_counts = free.count_tokens([build(0, text, blocks_of(6)) for text in texts])
    tight = Scripted(rule=lambda *_: "", context=whole_counts[0] - 10 + 7)
    fitted = fit_prompts(tight, build, texts, [blocks_of(6)] * 2, answer_tokens=7)
    assert max(tight.count_tokens(fitted.prompts)) <= tight.context - 7
    assert fitted.shown[0] == 4
    assert fitted.dropped == sum(6 - shown for shown in fitted.shown)
    assert fitted.cut == 0
    first = whole(fitted.prompts[0])
    assert "block0" not in first
    assert "block1" not in first
    assert first.index("block2") < first.index("block5")
    assert asked_text(fitted.prompts[0]) == texts[0]


def test_a_text_too_long_alone_is_cut_and_the_cue_stays():
    bare = Scripted(rule=lambda *_: "").count_tokens([build(0, "", ())])[0]
    tight = Scripted(rule=lambda *_: "", context=bare + 20 + 5)
    text = " ".join(f"w{i}" for i in range(100))
    fitted = fit_prompts(tight, build, [text, "short"], [blocks_of(2)] * 2, answer_tokens=5)
    assert asked_text(fitted.prompts[0]).split() == [f"w{i}" for i in range(20)]
    assert whole(fitted.prompts[0]).endswith("Label:")
    assert fitted.shown[0] == 0
    assert fitted.cut == 1
    assert asked_text(fitted.prompts[1]) == "short"


def test_instructions_that_do_not_fit_are_refused():
    with pytest.raises(UnsupportedError, match="context of 30 tokens"):
        fit_prompts(Scripted(rule=lambda *_: "", context=30), build, ["x"], [()], answer_tokens=5)
