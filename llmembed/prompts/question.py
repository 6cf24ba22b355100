"""What is asked of every text: tasks, their labels' names and a template; and how answers are read.

One task of one label, one task of a tag for each word, or several tasks answered by one JSON
object with a field for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.prompts.json_in_prose import fields_in, without_thoughts
from llmembed.prompts.messages import Prompt
from llmembed.prompts.parsing import LabelReader, Reading
from llmembed.prompts.slot_parsing import SlotReader, SlotReading
from llmembed.prompts.templates import Template, Variant, read_template
from llmembed.prompts.verbalisers import kind_of, names_of
from llmembed.prompts.worked_answers import label_span, label_text

Block = Mapping[str, str]
"""One demonstration: ``text`` and ``answer``, for worked answers also ``clues``, ``reasoning``."""


def variant_of(tasks: Sequence[Task]) -> Variant:
    """The template variant that asks ``tasks``. Raises ``UnsupportedError`` for ``multi``."""
    for task in tasks:
        if task.kind == "multi":
            raise UnsupportedError(
                f"prompts ask for one label, so they can't do task {task.name!r} of kind 'multi' "
                "(several labels a text); leave it out with data.tasks=[…]"
            )
    if len(tasks) > 1:
        return "tasks"
    return "slots" if tasks[0].kind == "tokens" else "label"


@dataclass(frozen=True, kw_only=True)
class Question:
    """``names``: task -> the readable name of each class; ``kind``: the sort of text."""

    tasks: tuple[Task, ...]
    names: Mapping[str, tuple[str, ...]]
    kind: str
    template: Template
    _readers: dict[str, LabelReader | SlotReader] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for task in self.tasks:
            self._readers[task.name] = (
                SlotReader(task=task)
                if task.kind == "tokens"
                else LabelReader(task=task, names=self.names[task.name])
            )

    @cached_property
    def _fixed(self) -> dict[str, str]:
        """What every text's prompt is filled with."""
        values = {"kind": self.kind, "field_names": "", "fields": "", "labels": ""}
        if len(self.tasks) > 1:
            values["fields"] = "\n".join(self._field(task) for task in self.tasks)
            values["field_names"] = ", ".join(json.dumps(task.name) for task in self.tasks)
        else:
            values["labels"] = "\n".join(f"- {name}" for name in self.choices(self.tasks[0]))
        return values

    def choices(self, task: Task) -> tuple[str, ...]:
        """What may be answered: the labels' names, for words the slots."""
        reader = self._readers[task.name]
        return reader.slots if isinstance(reader, SlotReader) else tuple(self.names[task.name])

    def _field(self, task: Task) -> str:
        names = ", ".join(json.dumps(name, ensure_ascii=False) for name in self.choices(task))
        if task.kind == "tokens":
            return (
                f"- {json.dumps(task.name)}: a list with exactly one tag for each word of the "
                "text, in order: B-SLOT for the first word of a slot, I-SLOT for each further "
                f"word of it, O for a word of no slot; in place of SLOT stands one of: {names}"
            )
        return f"- {json.dumps(task.name)}: one of these labels: {names}"

    def prompt(self, text: str, blocks: Sequence[Block] = (), **more: str) -> Prompt:
        """The filled prompt. ``more``: further values, such as a gold label's name."""
        words = text.split()
        values = {
            **self._fixed,
            "text": text,
            "word_count": str(len(words)),
            "words": json.dumps(words, ensure_ascii=False),
            **more,
        }
        return self.template.fill(values, blocks)

    def block(self, examples: Examples, row: int, **more: str) -> Block:
        """The demonstration of a training text: its text and what would be the right answer."""
        return {"text": examples.texts[row], "answer": self.answer_of(examples, row), **more}

    def answer_of(self, examples: Examples, row: int) -> str:
        """The gold answer of a training text, as the model should have written it."""
        said = {task.name: self._spoken(task, examples, row) for task in self.tasks}
        if len(self.tasks) > 1:
            return json.dumps(said, ensure_ascii=False)
        (value,) = said.values()
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def _spoken(self, task: Task, examples: Examples, row: int) -> str | list[str]:
        labels = examples.labels[task.name]
        if task.kind == "tokens":
            start, end = examples.offsets[row : row + 2]
            return [task.classes[label] for label in labels[start:end]]
        return self.names[task.name][int(labels[row])]

    def read(self, answer: str, words: Sequence[str]) -> dict[str, Reading | SlotReading]:
        """What ``answer`` says to each task; ``words``: of the text."""
        if len(self.tasks) == 1:
            (reader,) = self._readers.values()
            if isinstance(reader, SlotReader):
                return {reader.task.name: reader.read(answer, words)}
            return {reader.task.name: self._of_label(reader, answer)}
        found = fields_in(without_thoughts(answer), [task.name for task in self.tasks])
        return {task.name: self._of_field(task, found, words) for task in self.tasks}

    def _of_label(self, reader: LabelReader, answer: str) -> Reading:
        if self.template.variant == "carp_answer":
            answer = without_thoughts(answer)
            if answer and label_span(answer) is None:
                # Cut before its label, an answer still names labels among its clues.
                return reader.read_alone(answer) or Reading(label=-1, why="no label line")
        return reader.read(self._final(answer))

    def _of_field(
        self, task: Task, found: Mapping[str, Any], words: Sequence[str]
    ) -> Reading | SlotReading:
        reader = self._readers[task.name]
        if isinstance(reader, SlotReader):
            return reader.read(found.get(task.name), words)
        if task.name not in found:
            return Reading(label=-1, why="the answer lacks the task's field")
        return reader.read_value(found[task.name])

    def said(self, answer: str, task: Task) -> str:
        """The part of ``answer`` that speaks of ``task``."""
        if len(self.tasks) == 1:
            return self._final(answer)
        found = fields_in(without_thoughts(answer), [task.name for task in self.tasks])
        return str(found.get(task.name, answer))

    def _final(self, answer: str) -> str:
        if self.template.variant == "carp_answer":
            return label_text(without_thoughts(answer))
        return answer

    def to_json(self) -> dict[str, Any]:
        return {
            "names": {name: list(names) for name, names in self.names.items()},
            "kind": self.kind,
            "template": self.template.to_json(),
        }

    @classmethod
    def from_json(cls, tasks: Sequence[Task], data: Mapping[str, Any]) -> Question:
        return cls(
            tasks=tuple(tasks),
            names={name: tuple(names) for name, names in data["names"].items()},
            kind=data["kind"],
            template=Template.from_json(data["template"]),
        )


def make_question(
    tasks: Sequence[Task],
    variant: Variant,
    *,
    template: str | Path | None = None,
    benchmark: str | None = None,
    verbaliser: Mapping[str, Mapping[str, str]] | None = None,
    text_kind: str | None = None,
) -> Question:
    """What is asked of ``tasks``, in the words of ``benchmark`` or of one's own. Raises
    ``ConfigError``."""
    own = verbaliser or {}
    for name in own:
        if name not in {task.name for task in tasks}:
            known = ", ".join(task.name for task in tasks)
            raise ConfigError(f"verbaliser: there is no task {name!r}; tasks are {known}")
    return Question(
        tasks=tuple(tasks),
        names={
            task.name: task.classes
            if task.kind == "tokens"
            else names_of(task, benchmark=benchmark, own=own.get(task.name))
            for task in tasks
        },
        kind=text_kind or kind_of(benchmark),
        template=read_template(variant, template),
    )
