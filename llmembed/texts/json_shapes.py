"""What shape the rows of a JSON file have: an object a line, one list, or objects over lines.

A list is read object by object, never as a whole, so memory stays bounded whatever its length.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmembed.errors import DataError
from llmembed.texts.columns import Field, printable
from llmembed.texts.encodings import UTF8, refuse_no_text, sample_text, told_by
from llmembed.texts.files import DataFile

SAMPLE_BYTES = 1 << 18
READ_CHARACTERS = 1 << 20
OBJECT_CHARACTERS = 64 << 20
"""An object of a list that is longer than this is taken for one that never ends."""
_BLANK = " \t\r\n"
_NESTED = re.compile(r'\{\s*("(?:[^"\\]|\\.)*")\s*:\s*(\[\s*\{|\{\s*"0"\s*:)')


@dataclass(frozen=True, kw_only=True)
class Json:
    """``file``: with its encoding settled. ``lines``: an object a line; else values one after
    another, in a list or bare."""

    file: DataFile
    lines: bool
    assumed: str


def look_at_json(file: DataFile, fields: Sequence[Field]) -> Json:
    """The shape, by the file's beginning. Raises ``DataError`` where it holds no rows as such."""
    sample = file.start(SAMPLE_BYTES)
    refuse_no_text(sample, file.address)
    asked = file.form.encoding
    encoding = asked or told_by(sample) or UTF8
    told = f"read as {encoding.upper()}" if encoding != UTF8 and not asked else ""
    text = sample_text(sample, encoding, file.address, asked=asked is not None)
    text = text.removeprefix("\ufeff").lstrip()
    settled = replace(file, form=replace(file.form, encoding=encoding))
    whole = len(sample) < SAMPLE_BYTES
    return Json(file=settled, lines=_has_lines(text, whole, fields, file.address), assumed=told)


def _has_lines(text: str, whole: bool, fields: Sequence[Field], address: str) -> bool:
    if text.startswith("["):
        inside = text[1:].lstrip()[:1]
        if inside in ("{", "]", ""):
            return False
        if "\n[" in text or "\n{" in text:
            return True  # lines that hold lists: each is a bad row
        raise DataError(
            f"{address} holds a list, but not of objects: write one object a row, such as "
            + _example(fields)
        )
    if not text.startswith("{"):
        return True
    first, _, rest = text.partition("\n")
    value, end = _value(first, 0)
    if value is not None:
        if first[end:].strip():
            return False  # several on one line
        if whole and not rest.strip():
            _refuse_object(value, fields, address)
        return True
    value, end = _value(text, 0)
    if value is None:
        if re.search(r"\n\s?\{", text) is None:
            _refuse_nested(text, fields, address)
        return True
    if whole and not text[end:].strip():
        _refuse_object(value, fields, address)
    return False


def _value(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at ``start`` and where it ends; None where it is not whole."""
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


def _example(fields: Sequence[Field]) -> str:
    return json.dumps({field.column: "…" for field in fields}, ensure_ascii=False)


def _refuse_object(value: dict[str, Any], fields: Sequence[Field], address: str) -> None:
    """One object that holds all rows, told by what its values are."""
    plain = [field.column for field in fields if field.role != "many"]
    columns = [value.get(name) for name in plain]
    if any(isinstance(column, dict | list) for column in columns) or set(value) >= {
        "columns",
        "data",
    }:
        raise DataError(_of_columns(address))
    for name, rows in value.items():
        holds_rows = isinstance(rows, list) and rows and isinstance(rows[0], dict)
        if holds_rows and any(column not in value for column in plain):
            raise DataError(_of_a_name(address, name))


def _refuse_nested(text: str, fields: Sequence[Field], address: str) -> None:
    """The same of an object that is longer than the sample."""
    found = _NESTED.match(text)
    if found is None:
        return
    if found.group(2).startswith("{"):
        raise DataError(_of_columns(address))
    if all(json.dumps(field.column, ensure_ascii=False) in text for field in fields):
        raise DataError(_of_a_name(address, json.loads(found.group(1))))


def _of_columns(address: str) -> str:
    return (
        f"{address} holds columns and not rows, as to_json of pandas writes them: write it with "
        "to_json(PATH, orient='records', lines=True)"
    )


def _of_a_name(address: str, name: str) -> str:
    return (
        f"{address} holds one object, and its rows are the list under {printable(name)!r}: write "
        "that list alone, or one object on each line"
    )


def values_as_lines(file: DataFile, block: int) -> Iterator[bytes]:
    """The values of a list, or bare ones one after another, each on a line of its own, in blocks
    of about ``block`` bytes.

    Raises ``DataError`` at what is not JSON: where a list breaks, nothing tells its rows apart.
    """
    size, lines = 0, []
    for value in _values(file):
        lines.append(value.replace("\n", " ").replace("\r", " "))  # JSON strings hold none
        size += len(value)
        if size >= block:
            yield "\n".join([*lines, ""]).encode(UTF8, "surrogateescape")
            size, lines = 0, []
    if lines:
        yield "\n".join([*lines, ""]).encode(UTF8, "surrogateescape")


def _values(file: DataFile) -> Iterator[str]:
    """Each value as it is written."""
    reading = _Reading(file)
    inside, first, number = False, True, 0
    while char := reading.next_char():
        if char == "[" and not inside:
            inside, first = True, True
            reading.place += 1
            continue
        if char == "]" and inside:
            inside = False
            reading.place += 1
            continue
        if inside and not first:
            if char != ",":
                raise DataError(f"{file.address}: a comma is missing after object {number}")
            reading.place += 1
            if reading.next_char() == "]":
                continue  # a comma behind the last one
        first = False
        number += 1
        yield reading.value(number)
    if inside:
        raise DataError(f"{file.address}: its list is not closed; the file is cut off")


class _Reading:
    """A text read forwards, of which no more is held than one value and what was read with it."""

    def __init__(self, file: DataFile) -> None:
        self.address = file.address
        self.stream = io.TextIOWrapper(
            file.open_stream(), encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self.text, self.place, self.ended = "", 0, False

    def more(self) -> None:
        rest = self.text[self.place :]
        piece = self.stream.read(max(READ_CHARACTERS, len(rest)))
        self.ended = not piece
        self.text, self.place = rest + piece, 0

    def next_char(self) -> str:
        """The next one that is no blank; empty at the end."""
        while True:
            while self.place < len(self.text):
                char = self.text[self.place]
                if char not in _BLANK:
                    return char
                self.place += 1
            if self.ended:
                return ""
            self.more()

    def value(self, number: int) -> str:
        while True:
            value, end = _value(self.text, self.place)
            closed = isinstance(value, dict | list | str)  # a number might go on
            if end > self.place and (closed or end < len(self.text) or self.ended):
                found, self.place = self.text[self.place : end], end
                return found
            if self.ended or len(self.text) - self.place > OBJECT_CHARACTERS:
                shown = printable(self.text[self.place : self.place + 40])
                raise DataError(
                    f"{self.address}: object {number} is not JSON or never ends; it begins {shown}"
                )
            self.more()
