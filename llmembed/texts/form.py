"""How text files are written, as far as the user says so."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from llmembed.errors import ConfigError

NAMED = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "pipe": "|",
    "bar": "|",
    "space": " ",
}


@dataclass(frozen=True, kw_only=True)
class Form:
    """``delimiter``: one character between the values of a csv or tsv, or its name (``tab``,
    ``semicolon``, …). ``encoding``: of csv, tsv and JSON, by Python's name. None: told by the
    files themselves, as ``dialects`` and ``encodings`` say. Raises ``ConfigError``."""

    delimiter: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", _delimiter(self.delimiter))
        if self.encoding is not None:
            object.__setattr__(self, "encoding", _encoding(self.encoding))


def _delimiter(word: str) -> str:
    char = NAMED.get(word.lower(), word)
    if len(char) != 1 or not char.isascii() or char.isalnum() or char in "\"'\r\n\0":
        raise ConfigError(
            f"the delimiter {word!r} can't be used: give one character such as ; or |, or "
            f"{', '.join(NAMED)}"
        )
    return char


def _encoding(word: str) -> str:
    try:
        found = codecs.lookup(word)
        "".encode(word)  # codecs that make no text of bytes, such as hex, refuse
    except (LookupError, ValueError, UnicodeError):
        raise ConfigError(
            f"there is no encoding {word!r}; there are utf-8, utf-16, cp1252, latin-1, cp1250, "
            "cp1251, shift_jis, gb18030, big5, euc_kr and all others that Python knows"
        ) from None
    return found.name


def shown(delimiter: str) -> str:
    """A delimiter in a sentence."""
    return {"\t": "tabs", " ": "blanks"}.get(delimiter, f"{delimiter!r}")
