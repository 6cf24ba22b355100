"""Labels of one meaning in several spellings: brought to one where that is certain, told where it
is not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

from llmembed.texts.columns import listed, printable

INVISIBLE = "\u200b\u2060\ufeff\u00ad\u200e\u200f\u180e"
"""Characters without width that change no word."""
JOINERS = "\u200c\u200d"
"""Characters without width that do, inside a word or between two emoji."""
BLANKS = " " + "".join(chr(c) for c in range(0x3001) if chr(c).isspace() and c != 0x20)
TRIMMED = BLANKS + INVISIBLE + JOINERS
_DROPPED = str.maketrans(dict.fromkeys("\u00a0\u202f\u2007", " ") | dict.fromkeys(INVISIBLE, ""))
_WHOLE = re.compile(r"(-?[0-9]+)(\.0*)?")
_BOOLEAN = ("true", "false")


def canonical(label: str) -> str:
    """``label`` in NFC, without invisible characters, its no-break spaces as spaces, trimmed."""
    if label.isascii():
        return label.strip()
    return unicodedata.normalize("NFC", label.translate(_DROPPED)).strip(TRIMMED)


def one_spelling(labels: Iterable[str]) -> dict[str, str]:
    """Each label as read -> the class it stands for.

    Beside ``canonical``: where all labels of a task are whole numbers, ``1.0`` is ``1`` (leading
    zeros stay); where all are true or false, written in several ways, they are ``true`` and
    ``false``.
    """
    found = {label: canonical(label) for label in labels}
    names = set(found.values())
    whole = {name: match for name in names if (match := _WHOLE.fullmatch(name))}
    if len(whole) == len(names):
        return {
            label: re.sub(r"^-(?=0+$)", "", whole[name].group(1)) for label, name in found.items()
        }
    lowered = {name.lower() for name in names}
    if len(lowered) < len(names) and lowered <= set(_BOOLEAN):
        return {label: name.lower() for label, name in found.items()}
    return found


def merged_note(task: str, found: Mapping[str, str]) -> str | None:
    """Which labels were read as another, or None."""
    changed = sorted(label for label, name in found.items() if label != name)
    if not changed:
        return None
    shown = [f"{_seen(label)} as {_seen(found[label])}" for label in changed]
    return f"labels of {task} read in one spelling: {listed(shown, 8)}"


def _seen(label: str) -> str:
    """With what can't be seen escaped."""
    return "".join(
        f"\\u{ord(char):04x}" if char in TRIMMED[1:] or unicodedata.combining(char) else char
        for char in printable(label, 40)
    )


def alike(label: str) -> str:
    """The same for labels that differ by case, blanks, width or the spelling of a number."""
    key = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    match = _WHOLE.fullmatch(key)
    return match.group(1) if match else key.strip("\"' ")


def alike_note(task: str, classes: Collection[str]) -> str | None:
    """Classes that differ by their spelling alone, or None."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(alike(name), []).append(name)
    pairs = [" and ".join(map(_seen, group)) for group in groups.values() if len(group) > 1]
    if not pairs:
        return None
    return (
        f"classes of {task} that differ only in how they are written, and are counted apart: "
        f"{'; '.join(pairs[:8])}" + (f"; and {len(pairs) - 8} more" if len(pairs) > 8 else "")
    )


def quoted_note(task: str, classes: Collection[str]) -> str | None:
    """Classes that keep quotation marks, as behind a blank in a csv, or None."""
    quoted = [name for name in classes if len(name) > 1 and name[0] == name[-1] == '"']
    if not quoted:
        return None
    return (
        f"classes of {task} with quotation marks in their names: {listed(quoted, 8)}; in a csv a "
        "quote right behind the delimiter is no part of the value, one behind a blank is"
    )


def known_alike(names: Iterable[str], known: Collection[str]) -> str:
    """``"; they differ …"`` where names equal known ones but for their spelling, else empty."""
    keys = {alike(name): name for name in known}
    pairs = [f"{_seen(n)} from {_seen(keys[alike(n)])}" for n in names if alike(n) in keys]
    return f"; only in how it is written differs {listed(pairs, 8)}" if pairs else ""
