"""csv and tsv: through Arrow's streaming reader as long as it is content, and from the first row
it refuses on (a ragged line, bytes that are no UTF-8, a field longer than a block) in Python.

Both readers agree on what a row is: quotes double, newlines may stand inside quotes, empty lines
are passed over, a byte-order mark is dropped, all line endings are understood.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from llmembed.errors import DataError
from llmembed.texts.blocks import Block
from llmembed.texts.columns import Field, require_columns
from llmembed.texts.files import DataFile
from llmembed.texts.quarantine import BadRow

BLOCK_BYTES = 8 << 20
SAMPLE_BYTES = 1 << 20


def delimited_blocks(
    file: DataFile, fields: Sequence[Field], *, rows: int, keep: Sequence[str] = ()
) -> Iterator[Block]:
    dialect = _Dialect(file)
    wanted = list(dict.fromkeys([*(field.column for field in fields), *keep]))
    require_columns(wanted, dialect.header, file.address)
    cursor = _LineCursor(dialect)
    done = 0
    try:
        for table in _fast(dialect, wanted):
            for start in range(0, table.num_rows, rows):
                part = table.slice(start, rows)
                yield Block(
                    file=file.address,
                    table=part,
                    rows=np.arange(done, done + part.num_rows, dtype=np.int64),
                    line_of=cursor.line_of,
                )
                done += part.num_rows
        return
    except pa.ArrowException:
        pass  # Arrow names neither line nor reason in full: Python takes over from here
    yield from _slow(dialect, wanted, rows, skip=done)


class _Dialect:
    """How one file is written: its header, delimiter, and whether it quotes."""

    def __init__(self, file: DataFile) -> None:
        self.file = file
        self.delimiter = "\t" if file.format == "tsv" else ","
        with file.open_stream() as stream:
            sample = stream.read(SAMPLE_BYTES)
        if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{file.address} is UTF-16; save it as UTF-8")
        text = sample.decode("utf-8-sig", "replace")
        if not text.strip():
            raise DataError(f"{file.address} is empty")
        # A tab-separated file by the book never quotes, and a lone quote mark in it must not
        # swallow lines; spreadsheets quote all the same. The first megabyte tells which it is.
        self.quotes = file.format == "csv" or _is_quoted(text, len(sample) < SAMPLE_BYTES)
        self.header = next(row for row in self.reader(io.StringIO(text, newline="")) if row)

    def reader(self, lines: Iterator[str] | io.StringIO) -> Iterator[list[str]]:
        csv.field_size_limit(sys.maxsize)  # a long text is no error
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
        )


def _is_quoted(text: str, whole: bool) -> bool:
    if '"' not in text:
        return True
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    widths: list[int] = []
    try:
        widths.extend(len(row) for row in rows if row)
    except csv.Error as error:
        if whole or "unexpected end" not in str(error):
            return False
    return len(set(widths if whole else widths[:-1])) <= 1


def _fast(dialect: _Dialect, wanted: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of the wanted columns as strings; raises ``ArrowInvalid`` at what it can't read."""
    last = dialect.header[-1]
    with dialect.file.open_stream() as stream:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if dialect.quotes else False,
                newlines_in_values=dialect.quotes,
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=list(dict.fromkeys([*wanted, last])),
                column_types={name: pa.string() for name in [*wanted, last]},
            ),
        )
        held: pa.Table | None = None
        for batch in reader:
            if held is not None:
                yield held.select(wanted)
            held = pa.Table.from_batches([batch]) if batch.num_rows else held
        if held is None:
            return
        # A quote that is never closed makes the rest of the file one value of the last column.
        tail = held[last][-1].as_py()
        if tail is not None and ("\n" in tail or "\r" in tail):
            raise pa.ArrowInvalid("the last value may hold what follows an unclosed quote")
        yield held.select(wanted)


class _Lines:
    """The file's lines as text, undecodable bytes kept as surrogates; knows when it has ended."""

    def __init__(self, file: DataFile) -> None:
        self.stream = file.open_stream()
        self.text = io.TextIOWrapper(
            self.stream, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        yield from self.text
        self.ended = True


def _numbered(dialect: _Dialect) -> Iterator[tuple[int, list[str], bool]]:
    """(line it starts on, values, whether a quote in it is never closed) for each row after the
    header."""
    lines = _Lines(dialect.file)
    reader = dialect.reader(iter(lines))
    previous = 0
    is_header = True
    with lines.text:
        for row in reader:
            start, previous = previous + 1, reader.line_num  # type: ignore[attr-defined]
            if row and not is_header:
                yield start, row, lines.ended
            is_header = is_header and not row


class _LineCursor:
    """Finds the line of a row by reading the file once, forwards, as far as it is asked."""

    def __init__(self, dialect: _Dialect) -> None:
        self.dialect = dialect
        self.rows: Iterator[tuple[int, list[str], bool]] | None = None
        self.next_row = 0
        self.line = 0

    def line_of(self, row: int) -> int:
        if self.rows is None:
            self.rows = _numbered(self.dialect)
        while self.next_row <= row:
            self.line = next(self.rows)[0]
            self.next_row += 1
        return self.line


def _slow(dialect: _Dialect, wanted: Sequence[str], rows: int, *, skip: int) -> Iterator[Block]:
    address = dialect.file.address
    width = len(dialect.header)
    places = [dialect.header.index(name) for name in wanted]
    values: list[list[str]] = [[] for _ in wanted]
    numbers: list[int] = []
    lines: dict[int, int] = {}
    bad: list[BadRow] = []

    def block() -> Block:
        return Block(
            file=address,
            table=pa.table([pa.array(column, pa.string()) for column in values], names=wanted),
            rows=np.array(numbers, dtype=np.int64),
            line_of=dict(lines).__getitem__,
            bad=tuple(bad),
        )

    for number, (line, row, unclosed) in enumerate(_numbered(dialect)):
        if number < skip:
            continue
        reason = None
        if unclosed:
            reason = "a quote is opened and never closed"
        elif len(row) != width:
            reason = f"the row has {len(row)} values, the header {width}"
        elif not all(row[place].isascii() or _encodable(row[place]) for place in places):
            reason = "not UTF-8"
        if reason is not None:
            shown = [value.encode("utf-8", "surrogateescape") for value in row[:width]]
            bad.append(BadRow(file=address, line=line, reason=reason, row=shown))
        else:
            for column, place in zip(values, places, strict=True):
                column.append(row[place])
            numbers.append(number)
            lines[number] = line
        if len(numbers) + len(bad) >= rows:
            yield block()
            values, numbers, lines, bad = [[] for _ in wanted], [], {}, []
    if numbers or bad:
        yield block()


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
