"""From what a model wrote to a label: forgiving, and without ever seeing the right one.

An answer that could mean two labels means none: it is reported as invalid with the reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmembed.contract import Task
from llmembed.errors import ConfigError
from llmembed.prompts.json_in_prose import fields_in, key, values_in, without_thoughts

CUE_WORDS = "label answer category class topic intent sentiment output result prediction"
NEGATION = re.compile(
    r"(?:\b(?:not|no|never|neither|nor|without|rather than|instead of)|n't)"
    r"(?: (?:a|an|the|about|in|label|labelled|class|category|really|clearly))*[ \"'`*]*$"
)
AFTER_LABEL = re.compile(
    r"\s*(?:[.,;:()\[\]{}!?|\"'`*<>/–—-]|\b(?:because|since|as|due|for|given|with|is the)\b|$)"
)
JOINED = re.compile(
    r"\s*(?:[,/|&+]|\bor\b|\band\b)\s*(?:(?:or|and|maybe|possibly|also)\s+)*[\"'`*]*"
)
NUMBERING = re.compile(r"\(?\d{1,3}[.):]\s+")
DENIED = re.compile(
    r"[\"'`*)\]]*\s*(?:\?\s*[\"'`*]*(?:no|nope|not)\b"
    r"|(?:[:=–—-]+>?|→) *[\"'`*]*(?:no|nope|wrong|false)(?![\w'])(?! \w)"
    r"|(?:is|was|does|do) not\b|(?:is|was|does|do)n't\b)"
)
DOUBTED = re.compile(r"[\"'`*)\]]*\s*\?")
VERDICT = re.compile(r"[\"'`*)\]]*\s*(?:[:=]|->|→| [–—-] )")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an answer says: a class's index, or -1 and why none could be read."""

    label: int
    why: str | None = None


def simplified(text: str) -> str:
    """As labels are compared: case, width, white space and hyphens between words do not count."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    text = re.sub(r"(?<=\w)[-_]+(?=\w)", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def bare(line: str) -> str:
    """A simplified line without bullets, quotes and marks around it."""
    line = re.sub(r"^[\s>#]*(?:[-*•]\s+)?", "", line)
    return simplified(line.strip(" \t\"'`*“”„‘’«»()[]{}<>.,;:!?")).strip()


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    either = "|".join(re.escape(name) for name in longest_first)
    return re.compile(rf"(?<![\w.])(?<!\w[-'])({either})(?!\w|[.'-]\w)")


def _doubted(text: str, end: int) -> bool:
    """Whether the label that ends at ``end`` is asked about or denied."""
    return bool(DOUBTED.match(text, end) or DENIED.match(text, end))


@dataclass(frozen=True, kw_only=True)
class LabelReader:
    """Reads the answers to one task of one label. ``names``: the readable name of each class; a
    label as the data writes it is understood as well where it is all that is said: as a word
    among others (``1.``, ``no``) it need not mean the label.

    Raises:
        ConfigError: a name of one class can't be told from another class's name or label.
    """

    task: Task
    names: Sequence[str]
    _index: dict[str, int] = field(init=False, repr=False, compare=False)
    _shown: dict[str, int] = field(init=False, repr=False, compare=False)
    _numbers: bool = field(init=False, repr=False, compare=False)
    _raw: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _mention: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _cue: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, int] = {}
        for written in (self.names, self.task.classes):
            for label, name in enumerate(written):
                other = index.setdefault(bare(name) or simplified(name), label)
                if other != label:
                    raise ConfigError(
                        f"verbaliser: {name!r} can't be told apart as the name of label "
                        f"{self.task.classes[label]!r} and of {self.task.classes[other]!r} of task "
                        f"{self.task.name!r}"
                    )
        shown = {name: index[name] for name in (bare(n) or simplified(n) for n in self.names)}
        cues = "|".join([*CUE_WORDS.split(), re.escape(simplified(self.task.name))])
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_shown", shown)
        object.__setattr__(
            self, "_numbers", any(re.fullmatch(r"[+-]?[\d.,]+", name) for name in shown)
        )
        object.__setattr__(self, "_mention", _any_of(shown))
        object.__setattr__(self, "_raw", _any_of(index))
        object.__setattr__(
            self,
            "_cue",
            re.compile(
                rf"\b(?:{cues})s?\b[\"'`*)]*\s*(?:is|would be|should be|must be|:|=|->|→)"
                r"[\s:\"'`*(\[]*(?:the |a |an |class |label |category )*[\"'`*(\[]*"
            ),
        )

    def read(self, answer: str) -> Reading:
        """The label that ``answer`` gives: alone, after a cue, in JSON, followed by an
        explanation, mentioned as the only one, or begun so that only one can be meant."""
        answer = without_thoughts(answer)
        if not answer:
            return Reading(label=-1, why="empty answer")
        for value in self._in_json(answer):
            found = self._index.get(bare(value), -1)
            return Reading(label=found) if found >= 0 else self._in_words(value)
        return self.read_alone(answer) or self._in_words(answer)

    def read_alone(self, answer: str) -> Reading | None:
        """The label of an answer that says nothing but a label, else None."""
        found = self._index.get(self._unnumbered(bare(answer)), -1)
        return Reading(label=found) if found >= 0 else None

    def read_value(self, value: Any) -> Reading:
        """The label in a field of a JSON answer."""
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return Reading(label=-1, why="no label in the field")
        return self.read(str(value))

    def _in_json(self, answer: str) -> list[str]:
        """The text of an answer's field, where the answer holds an object with such a field."""
        if "{" in answer:
            names = [self.task.name, *CUE_WORDS.split()]
            objects = [value for value in values_in(answer, "{") if isinstance(value, dict)]
            known = {key(name) for name in names}
            for found in objects:
                values = [v for k, v in found.items() if key(k) in known] or [*found.values()]
                if len(values) == 1 and isinstance(values[0], (str, int)):
                    return [str(values[0])]
            if not objects and (cut := fields_in(answer, names)):
                return [str(value) for value in cut.values()][:1]
        if answer.lstrip("`json \n").startswith("["):
            for value in values_in(answer, "["):
                if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
                    return [value[0]]
        return []

    def _in_words(self, answer: str) -> Reading:
        lines = [simplified(line) for line in answer.splitlines()]
        first, cued = self._first_line(lines)
        label = (self._index if cued else self._shown).get(first, -1)
        if label >= 0:
            return self._beside(label, lines, verdicts=False) or Reading(label=label)
        lead = self._mention.match(first)
        if lead and AFTER_LABEL.match(first, lead.end()) and not _doubted(first, lead.end()):
            label = self._index[lead[1]]
            rival = self._rival(first, lead.end(), label)
            if rival is None and VERDICT.match(first, lead.end()):
                rival = self._beside(label, lines, verdicts=True)
            return rival or Reading(label=label)
        whole = "\n".join(lines)
        mentioned = self._announced(whole) or {
            self._index[found[1]]
            for found in self._mention.finditer(whole)
            if not NEGATION.search(whole[: found.start()]) and not DENIED.match(whole, found.end())
        }
        if len(mentioned) == 1:
            return Reading(label=mentioned.pop())
        if mentioned:
            return self._ambiguous(mentioned)
        begun = {label for name, label in self._shown.items() if name.startswith(first)}
        if len(first) >= 2 and len(begun) == 1:
            return Reading(label=begun.pop())
        if len(first) >= 2 and begun:
            return self._ambiguous(begun)
        written = {
            self._index[found[1]]
            for found in self._raw.finditer(whole)
            if not NEGATION.search(whole[: found.start()])
        }
        if len(written) > 1:
            return self._ambiguous(written)
        return Reading(label=-1, why="no label in the answer")

    def _announced(self, whole: str) -> set[int]:
        """The labels that stand after a cue."""
        labels = set()
        for cue in self._cue.finditer(whole):
            said = self._unnumbered(bare(whole[cue.end() :].partition("\n")[0]))
            found = self._mention.match(whole, cue.end())
            if said in self._index:
                labels.add(self._index[said])
            elif found and not _doubted(whole, found.end()):
                labels.add(self._index[found[1]])
        return labels

    def _unnumbered(self, line: str) -> str:
        """``line`` without its number in a list, unless labels are numbers."""
        return line if self._numbers else NUMBERING.sub("", line, count=1)

    def _beside(self, label: int, lines: Sequence[str], *, verdicts: bool) -> Reading | None:
        """Ambiguous where further lines are other labels; with ``verdicts``, where they give a
        verdict on another label that is not a no."""
        others = set()
        for line in map(self._unnumbered, map(bare, lines)):
            found = self._mention.match(line)
            if line in self._shown:
                others.add(self._shown[line])
            elif found is None or not verdicts or DENIED.match(line, found.end()):
                continue
            elif VERDICT.match(line, found.end()):
                others.add(self._index[found[1]])
        return self._ambiguous(others | {label}) if others - {label} else None

    def _first_line(self, lines: Sequence[str]) -> tuple[str, bool]:
        """The first line that says something, a repeated cue taken off, and whether one was."""
        cued = False
        for line in lines:
            start = line.lstrip("\"'`*#>- ")
            cue = self._cue.match(start)
            cued = cued or cue is not None
            if found := self._unnumbered(bare(start[cue.end() :] if cue else line)):
                return found, cued
        return "", cued

    def _rival(self, line: str, end: int, label: int) -> Reading | None:
        joined = JOINED.match(line, end)
        other = self._mention.match(line, joined.end()) if joined else None
        if other and self._index[other[1]] != label:
            return self._ambiguous({label, self._index[other[1]]})
        return None

    def _ambiguous(self, labels: set[int]) -> Reading:
        named = sorted(labels)[:3]
        said = ", ".join(repr(self.names[label]) for label in named)
        more = " and others" if len(labels) > len(named) else ""
        return Reading(label=-1, why=f"the answer could mean {said}{more}")
