"""Prompts as text files that anyone can edit: what the parts are, and how they are filled.

A template file has parts, each under a line of its own::

    == system ==      who the model is, the labels, {examples}, what to answer
    == examples ==    what surrounds the demonstrations, which stand for {blocks}
    == example ==     one demonstration
    == user ==        the text between markers, and after it the cue that the answer follows
    == stop ==        words that end an answer, one a line (\\n for a line break)

Names in braces are filled in; other braces are left alone. Lines before the first part are
comments. The parts and their order are those of the paper on single and multi-task fine-tuning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmembed.errors import ConfigError
from llmembed.prompts.messages import Message, Prompt, Role

Variant = Literal["label", "io", "tasks", "slots", "carp_clues", "carp_reasoning", "carp_answer"]

PART = re.compile(r"^==\s*(\w+)\s*==\s*$", re.MULTILINE)
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PROMPTS = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What a variant's parts may and must hold. ``shown``: must be in system or user."""

    shown: frozenset[str]
    extra: frozenset[str] = frozenset()
    example: frozenset[str] = frozenset()
    with_examples: bool = True


def _form(shown: str, *, extra: str = "", example: str = "", with_examples: bool = True) -> _Form:
    words = (frozenset(part.split()) for part in (shown, extra, example))
    named = dict(zip(("shown", "extra", "example"), words, strict=True))
    return _Form(**named, with_examples=with_examples)


FORMS: dict[Variant, _Form] = {
    "label": _form("labels text", example="text answer"),
    "io": _form("labels text", example="text answer"),
    "tasks": _form("fields text", extra="field_names word_count words", example="text answer"),
    "slots": _form("labels text", extra="word_count words", example="text answer"),
    "carp_clues": _form("text answer", extra="labels", with_examples=False),
    "carp_reasoning": _form("text clues answer", extra="labels", with_examples=False),
    "carp_answer": _form("labels text", example="text clues reasoning answer"),
}


@dataclass(frozen=True, kw_only=True)
class Template:
    """One filled-in-later prompt; see the module's docstring for the parts."""

    variant: Variant
    system: str
    user: str
    example: str = ""
    examples: str = ""
    stop: tuple[str, ...] = ()

    def fill(self, values: Mapping[str, str], examples: Sequence[Mapping[str, str]] = ()) -> Prompt:
        """The prompt for one text. ``values``: name -> what stands for ``{name}``; ``examples``:
        the same for each demonstration, in the order in which they are shown."""
        block = ""
        if examples:
            blocks = "\n\n".join(_filled(self.example, {**values, **each}) for each in examples)
            block = _filled(self.examples, {**values, "blocks": blocks})
        parts: tuple[tuple[Role, str], ...] = (("system", self.system), ("user", self.user))
        return tuple(
            Message(role=role, content=content)
            for role, part in parts
            if (content := _filled(part, {**values, "examples": block}).strip())
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "system": self.system,
            "user": self.user,
            "example": self.example,
            "examples": self.examples,
            "stop": list(self.stop),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Template:
        return cls(**{**data, "stop": tuple(data["stop"])})


def read_template(variant: Variant, file: str | Path | None = None) -> Template:
    """The template of ``variant``: ours, or the user's own ``file``.

    Raises:
        ConfigError: the file can't be read, lacks a part or names something that is not filled in.
    """
    path = PROMPTS / f"{variant}.txt" if file is None else Path(file).expanduser()
    try:
        written = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the prompt template {path}: {error}") from error
    return parse_template(variant, written, str(path))


def parse_template(variant: Variant, written: str, place: str = "template") -> Template:
    """The template that ``written`` holds; ``place`` names it in messages. Raises
    ``ConfigError``."""
    pieces = PART.split(written)
    if len(pieces) == 1:
        raise ConfigError(f"{place} has no parts: start each with a line such as `== user ==`")
    parts: dict[str, str] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if name not in ("system", "examples", "example", "user", "stop"):
            raise ConfigError(
                f"{place} has a part {name!r}; known are system, examples, example, user, stop"
            )
        if name in parts:
            raise ConfigError(f"{place} has the part {name!r} twice")
        parts[name] = body.strip("\n")
    _check(variant, parts, place)
    stop = tuple(
        line.replace("\\n", "\n") for line in parts.pop("stop", "").splitlines() if line.strip()
    )
    parts.setdefault("system", "")
    return Template(variant=variant, stop=stop, **parts)


def _check(variant: Variant, parts: Mapping[str, str], place: str) -> None:
    form = FORMS[variant]
    if "user" not in parts:
        raise ConfigError(f"{place} lacks the part `== user ==`, where the text goes")
    if form.with_examples != ("example" in parts) or form.with_examples != ("examples" in parts):
        must = "must have" if form.with_examples else "must not have"
        raise ConfigError(
            f"{place}: a {variant!r} template {must} the parts `== examples ==` and `== example ==`"
        )
    general = {"kind", *form.shown, *form.extra}
    allowed = {
        "system": {*general, "examples"} if form.with_examples else general,
        "user": {*general, "examples"} if form.with_examples else general,
        "examples": {*general, "blocks"} - {"text"},
        "example": {*general, *form.example},
        "stop": set(),
    }
    for part, body in parts.items():
        for name in PLACEHOLDER.findall(body):
            if name not in allowed[part]:
                near = difflib.get_close_matches(name, allowed[part], n=1)
                hint = f"; did you mean {{{near[0]}}}?" if near else ""
                known = ", ".join(f"{{{known}}}" for known in sorted(allowed[part])) or "nothing"
                raise ConfigError(
                    f"{place}: {{{name}}} in part {part!r} is not filled in for a {variant!r} "
                    f"template; {known} can be{hint}"
                )
    shown = {*PLACEHOLDER.findall(parts.get("system", "") + parts["user"])}
    wanted: list[tuple[str, set[str], frozenset[str]]] = [("system or user", shown, form.shown)]
    if form.with_examples:
        wanted.append(("system or user", shown, frozenset({"examples"})))
        in_example = {*PLACEHOLDER.findall(parts["example"])}
        wanted.append(("example", in_example, form.example))
        in_examples = {*PLACEHOLDER.findall(parts["examples"])}
        wanted.append(("examples", in_examples, frozenset({"blocks"})))
    for part, found, needed in wanted:
        missing = sorted(needed - found)
        if missing:
            raise ConfigError(
                f"{place}: a {variant!r} template must hold {{{missing[0]}}} in {part}"
            )
    if parts["user"].count("{text}") != 1:
        raise ConfigError(f"{place}: part 'user' must hold {{text}} exactly once")
    if not parts["user"].partition("{text}")[2].strip():
        raise ConfigError(
            f"{place}: part 'user' ends with {{text}}; after it must come the cue that the answer "
            "follows, such as `Label:`"
        )


def _filled(part: str, values: Mapping[str, str]) -> str:
    """``part`` with its placeholders filled in one pass, so that braces in a text stay as they
    are. Without examples their line goes, with one blank line."""
    if values.get("examples") == "":
        part = re.sub(r"^\{examples\}\n(\n)?", "", part, flags=re.MULTILINE)
    return PLACEHOLDER.sub(lambda found: values[found[1]], part)
