"""Lists of labels that were written as text: by Python, JSON, NumPy, a database, or with a
separator between them."""

from __future__ import annotations

import re

LIST = r"(?s)^(\[.*\]|\{.*\}|\(\s*(['\"].*)?\))$"
"""What begins and ends as a list; round brackets count with quotes inside."""
PLAINLY = r"(?s)^\[\s*(['\"].*|[^\]]*,.*)?\s*\]$"
"""A list beyond doubt, in a column of which no list is expected: ``[news]`` may be a label."""
_QUOTED = re.compile(r"\s*(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\s*", re.DOTALL)
_EMPTY = ("", "none", "nan", "null")


def cut(text: str, separator: str | None) -> list[str] | None:
    """The labels of a string: a list as written, else its parts between separators (None: white
    space). None where nothing is left, or a list can't be read; ``[]`` is an empty list."""
    text = text.strip()
    if re.match(LIST, text) and (separator is not None or "'" in text or '"' in text):
        return _read(text[1:-1])
    parts = text.split(separator)
    return [part.strip() for part in parts if part.strip()] or None


def _read(inside: str) -> list[str] | None:
    """What stands between the brackets. An item that is empty or None becomes an empty string,
    which no list of labels may hold."""
    if not inside.strip() or inside.strip() in ("'", '"'):
        return []
    if "'" not in inside and '"' not in inside:
        found = inside.split(",") if "," in inside else inside.split()
        if found[-1:] and not found[-1].strip():
            found.pop()  # (1,)
        return [_plain(item) for item in found]
    items: list[str] = []
    place = 0
    while place < len(inside):
        quoted = _QUOTED.match(inside, place)
        if quoted is not None:
            single, double = quoted.groups()
            items.append(_unescaped(single if single is not None else double))
            place = quoted.end()
        else:
            bare = re.compile(r"\s*([^\s,'\"]+)\s*").match(inside, place)
            if bare is None or bare.group(1) == "...":  # NumPy leaves out what is long
                return None
            items.append(_plain(bare.group(1)))
            place = bare.end()
        if inside[place : place + 1] == ",":
            place += 1
    return items


def _plain(item: str) -> str:
    item = item.strip()
    return "" if item.lower() in _EMPTY else item


def _unescaped(item: str) -> str:
    r"""Without the backslashes: ``\'``, ``\n``, ``\u00e9`` as Python and JSON write them."""
    if "\\" not in item:
        return item
    known = {"n": "\n", "t": "\t", "r": "\r"}

    def plain(found: re.Match[str]) -> str:
        code, letter = found.group(1), found.group(2)
        return chr(int(code[1:], 16)) if code else known.get(letter, letter)

    return re.sub(r"\\(?:(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})|(.))", plain, item, flags=re.DOTALL)
