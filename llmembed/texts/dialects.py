"""How one csv or tsv is written: encoding, delimiter, quotes, header; told by its beginning.

The delimiter is the one that gives the columns asked for, the suffix's own before others; a first
line ``sep=;``, as spreadsheets read it, is obeyed and passed over.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from llmembed.errors import DataError
from llmembed.texts.columns import closest, listed, require_columns
from llmembed.texts.encodings import UTF8, refuse_no_text, sample_text, told_by
from llmembed.texts.files import DataFile
from llmembed.texts.form import shown

SAMPLE_BYTES = 1 << 20
DELIMITERS = (",", ";", "\t", "|")
TITLE_LINES = 20
"""A header is looked for in so many lines when the first one is none."""
_SEPARATOR_LINE = re.compile(r'"?sep=([^\r\n])"?[ ]*(\r\n|\n|\r|$)', re.IGNORECASE)


class Dialect:
    """Raises ``DataError`` when the file is empty or no text, or lacks a column of ``wanted``.

    ``file``: the file with its encoding settled. ``skip``: 1 where the first line only names the
    delimiter. ``assumed``: what was not as the suffix says, in words for the user.
    """

    def __init__(
        self, file: DataFile, wanted: Sequence[str], *, sample_bytes: int = SAMPLE_BYTES
    ) -> None:
        sample = file.start(sample_bytes)
        refuse_no_text(sample, file.address)
        asked = file.form.encoding
        encoding = asked or told_by(sample) or UTF8
        self.file = replace(file, form=replace(file.form, encoding=encoding))
        self.whole = len(sample) < sample_bytes
        text = sample_text(sample, encoding, file.address, asked=asked is not None)
        text = text.removeprefix("\ufeff")
        said = [] if asked or encoding == UTF8 else [f"read as {encoding.upper()}"]
        own = _SEPARATOR_LINE.match(text)
        self.skip = 1 if own else 0
        self.sample = text[own.end() :] if own else text
        if not self.sample.strip():
            raise DataError(f"{file.address} is empty")
        usual = "\t" if file.format == "tsv" else ","
        self.delimiter = file.form.delimiter or (own.group(1) if own else usual)
        if file.form.delimiter is None and own is None and _missing(self._first(usual), wanted):
            fitting = [d for d in DELIMITERS if not _missing(self._first(d), wanted)]
            self.delimiter = fitting[0] if len(fitting) == 1 else usual
        if file.form.delimiter is None and self.delimiter != usual:
            why = ", as its first line says" if self.skip else ""
            said.append(f"columns cut at {shown(self.delimiter)}{why}")
        self.assumed = " and ".join(said)
        # A tab-separated file by the book never quotes, and a lone quote mark in it must not
        # swallow lines; spreadsheets quote all the same. The sample tells which it is.
        self.quotes = self.delimiter != "\t" or _is_quoted(self.sample, self.whole)
        self.header = self._first(self.delimiter, self.quotes)
        if _missing(self.header, wanted):
            self._refuse(wanted)
        require_columns(wanted, self.header, file.address)

    @property
    def encoding(self) -> str:
        """In a sentence."""
        return (self.file.form.encoding or UTF8).upper()

    def reader(
        self, lines: Iterator[str] | io.StringIO, *, strict: bool = False
    ) -> Iterator[list[str]]:
        rows: Iterator[list[str]] = _reader(
            lines, self.delimiter, quotes=self.quotes, strict=strict
        )
        return rows

    def _first(self, delimiter: str, quotes: bool = True) -> list[str]:
        return next(_rows(self.sample, delimiter, quotes=quotes), [""])

    def _refuse(self, wanted: Sequence[str]) -> None:
        """Say what is odd about a file that lacks columns, where it can be seen."""
        address = self.file.address
        tried = [self.delimiter] if self.file.form.delimiter or self.skip else DELIMITERS
        for delimiter in tried:
            rows = _reader(io.StringIO(self.sample, newline=""), delimiter, quotes=True)
            for row in rows:
                if not _missing(row, wanted):
                    raise DataError(
                        f"{address}: the header seems to be line {rows.line_num + self.skip} "
                        f"({listed(row, 8)}); remove what stands above it"
                    )
                if rows.line_num > TITLE_LINES:
                    break
        if len(self.header) > 1 or len(wanted) == 1:
            if self._is_a_row(wanted):
                raise DataError(
                    f"{address} seems to have no header: its first line is a row of "
                    f"{len(self.header)} values ({listed(self.header, 4)}); put a line with the "
                    f"columns' names above it, {', '.join(wanted)} among them"
                )
            return
        most = max(tried, key=lambda d: len(self._first(d)))
        columns = self._first(most)
        if len(columns) > 1:
            missing = _missing(columns, wanted)
            raise DataError(
                f"{address}, cut at {shown(most)}, has no column {missing[0]!r}; its columns are "
                f"{listed(columns)}.{closest(missing[0], columns)}"
            )

    def _is_a_row(self, wanted: Sequence[str]) -> bool:
        """Whether the first line looks like the rows below it: a value of it comes again in its
        column, or is a sentence."""
        if any(closest(name, self.header) for name in wanted):
            return False
        rows = list(zip(range(1000), _rows(self.sample, self.delimiter), strict=False))[1:]
        for place, name in enumerate(self.header):
            below = [row[place] for _, row in rows if len(row) == len(self.header)]
            if name.strip() and (name in below or len(name.split()) > 5):
                return True
        return False


def _missing(header: Sequence[str], wanted: Sequence[str]) -> list[str]:
    return [name for name in wanted if name not in header]


def _rows(text: str, delimiter: str, *, quotes: bool = True) -> Iterator[list[str]]:
    rows = _reader(io.StringIO(text, newline=""), delimiter, quotes=quotes)
    return (row for row in rows if row)


def _reader(
    lines: Iterator[str] | io.StringIO, delimiter: str, *, quotes: bool, strict: bool = False
) -> Any:
    csv.field_size_limit(sys.maxsize)  # a long text is no error
    return csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=strict,
    )


def _is_quoted(text: str, whole: bool) -> bool:
    if '"' not in text:
        return True
    rows = _reader(io.StringIO(text, newline=""), "\t", quotes=True, strict=True)
    widths: list[int] = []
    try:
        widths.extend(len(row) for row in rows if row)
    except csv.Error as error:
        if whole or "unexpected end" not in str(error):
            return False
    return len(set(widths if whole else widths[:-1])) <= 1
