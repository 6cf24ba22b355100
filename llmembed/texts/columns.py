"""Which columns of a data source hold the text, the words and the labels."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from llmembed.contract import Kind
from llmembed.errors import ConfigError, DataError

Role = Literal["text", "one", "many"]
"""What a column must hold: a text, one label, or several labels (or words)."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column and what it must hold; ``separator`` cuts a string that holds many values
    (None: at white space). ``empty_is_none``: without a value, none of the labels is meant."""

    column: str
    role: Role
    separator: str | None = None
    empty_is_none: bool = False


class NoColumnError(DataError):
    """A file lacks ``column``."""

    def __init__(self, sentence: str, column: str) -> None:
        super().__init__(sentence)
        self.column = column

    def __reduce__(self) -> tuple[type[NoColumnError], tuple[str, str]]:
        return type(self), (str(self), self.column)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The user's names for what we need.

    ``labels``: task name -> column; a string or a list of names stands for tasks named as their
    columns. ``kinds``: task name -> kind, ``single`` where none is given. ``words``: column with
    the words of each text, for ``tokens``; without it the text is split at white space. ``text``
    may be None when ``words`` is given: the words are then joined by spaces. ``separator`` cuts a
    ``multi`` label that is one string; ``empty_is_none`` takes an empty one, or none, for a row
    with none of the labels. Raises ``ConfigError``.
    """

    text: str | None = "text"
    labels: Mapping[str, str] | Sequence[str] | str = field(
        default_factory=lambda: {"label": "label"}
    )
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    words: str | None = None
    separator: str = ","
    empty_is_none: bool = False

    def __post_init__(self) -> None:
        labels = self.labels
        if isinstance(labels, str):
            labels = [labels]
        if not isinstance(labels, Mapping):
            labels = {name: name for name in labels}
        object.__setattr__(self, "labels", dict(labels))
        if not labels:
            raise ConfigError("no label column is named; name at least one")
        if self.text is None and self.words is None:
            raise ConfigError("neither a text column nor a words column is named; name one")
        for task, kind in self.kinds.items():
            if task not in labels:
                raise ConfigError(
                    f"a kind is given for task {task!r}, but the tasks are {listed(labels)}"
                )
            if kind not in get_args(Kind):
                raise ConfigError(
                    f"the kind of task {task!r} is {kind!r}; it must be one of "
                    f"{listed(get_args(Kind))}"
                )
        if not self.separator:
            raise ConfigError("the separator of several labels is empty; give a character")

    @property
    def tasks(self) -> dict[str, tuple[str, Kind]]:
        """Task name -> (column, kind)."""
        assert isinstance(self.labels, Mapping)
        return {
            task: (column, self.kinds.get(task, "single")) for task, column in self.labels.items()
        }

    @property
    def has_words(self) -> bool:
        return any(kind == "tokens" for _, kind in self.tasks.values())

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every column that must be read, once each."""
        found: dict[str, Field] = {}
        if self.text is not None:
            found[self.text] = Field(column=self.text, role="text")
        if self.words is not None:
            found[self.words] = Field(column=self.words, role="many")
        for task, (column, kind) in self.tasks.items():
            role: Role = "one" if kind == "single" else "many"
            multi = kind == "multi"
            new = Field(
                column=column,
                role=role,
                separator=self.separator if multi else None,
                empty_is_none=multi and self.empty_is_none,
            )
            if found.setdefault(column, new) != new:
                raise ConfigError(
                    f"column {column!r} is named for task {task!r} and for something else; "
                    "one column can serve one purpose only"
                )
        return tuple(found.values())


def listed(names: Iterable[object], limit: int = 30) -> str:
    """``a, b, c`` for a message; long lists and long names are cut, control characters escaped."""
    all_names = list(names)
    shown = ", ".join(printable(str(name)) for name in all_names[:limit])
    return shown + (f" and {len(all_names) - limit} more" if len(all_names) > limit else "")


def printable(text: str, limit: int = 200) -> str:
    """``text`` on one line that does nothing to a terminal, cut after ``limit`` characters."""
    cut = text[:limit] + "…" * (len(text) > limit)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)


def closest(name: str, existing: Iterable[str]) -> str:
    """``" Did you mean 'label'?"``, or an empty string when nothing is near."""
    lowered = {other.lower(): other for other in existing}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean {lowered[near[0]]!r}?" if near else ""


def require_columns(wanted: Iterable[str], existing: Sequence[str], where: str) -> None:
    """Raise ``DataError`` when a column is missing or its name occurs twice."""
    for name in wanted:
        if name not in existing:
            raise NoColumnError(
                f"{where} has no column {name!r}; its columns are {listed(existing)}."
                + closest(name, existing),
                name,
            )
        if list(existing).count(name) > 1:
            raise DataError(f"{where} has {existing.count(name)} columns named {name!r}")
