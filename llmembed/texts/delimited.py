"""csv and tsv: through Arrow's streaming reader as long as it is content, and from the first row
it refuses on (a ragged line, bytes that are no UTF-8, a field longer than a block) in Python.

Both readers agree on what a row is: quotes double, newlines may stand inside quotes, empty lines
are passed over, a byte-order mark is dropped, all line endings are understood.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from llmembed.texts.blocks import Block
from llmembed.texts.columns import Field
from llmembed.texts.dialects import Dialect
from llmembed.texts.files import DataFile
from llmembed.texts.quarantine import BadRow

BLOCK_BYTES = 1 << 20
"""Arrow reads up to 32 of them ahead."""
ROW_CHARACTERS = 64 << 20
"""A row over several lines that is longer than this has a quote that is never closed."""


def delimited_blocks(
    file: DataFile, fields: Sequence[Field], *, rows: int, keep: Sequence[str] = ()
) -> Iterator[Block]:
    wanted = list(dict.fromkeys([*(field.column for field in fields), *keep]))
    dialect = Dialect(file, wanted)
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
                    assumed=dialect.assumed,
                )
                done += part.num_rows
        return
    except pa.ArrowException:
        pass  # Arrow names neither line nor reason in full: Python takes over from here
    yield from _slow(dialect, wanted, rows, skip=done)


def _fast(dialect: Dialect, wanted: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of the wanted columns as strings; raises ``ArrowInvalid`` at what it can't read, and
    at the first value of several lines: it may hold rows that a stray quote has swallowed, which
    Arrow does not tell from a text of several lines."""
    header = dialect.header
    if len(set(header)) < len(header):
        raise pa.ArrowInvalid("Arrow can't tell columns of one name apart")
    read = header if dialect.quotes else wanted
    with dialect.file.open_stream() as stream:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES, skip_rows=dialect.skip),
            parse_options=pacsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if dialect.quotes else False,
                newlines_in_values=dialect.quotes,
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=list(read), column_types={name: pa.string() for name in read}
            ),
        )
        for batch in reader:
            if dialect.quotes and any(_has_lines(column) for column in batch.columns):
                raise pa.ArrowInvalid("a value of several lines")
            if batch.num_rows:
                yield pa.Table.from_batches([batch]).select(wanted)


def _has_lines(column: pa.Array) -> bool:
    """Whether any value holds a line break; looks at the bytes of all values at once."""
    first, last = column.buffers()[1], column.buffers()[2]
    if last is None:
        return False
    offsets = np.frombuffer(first, np.int32)[column.offset : column.offset + len(column) + 1]
    start, end = int(offsets[0]), int(offsets[-1])
    data = last.slice(start, end - start).to_pybytes()
    return b"\n" in data or b"\r" in data


class _Lines:
    """The file's lines as text, undecodable bytes kept as surrogates.

    A csv reader draws the lines of one row from it after another. ``taken`` are those of the row
    at hand; ``give_back`` returns all of them but the first, to be read anew.
    """

    def __init__(self, file: DataFile) -> None:
        self.text = io.TextIOWrapper(
            file.open_stream(), encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self.waiting: deque[str] = deque()
        self.taken: list[str] = []
        self.characters = 0
        self.limit = sys.maxsize
        self.ended = False

    def start_row(self, limit: int) -> None:
        self.taken, self.characters, self.limit, self.ended = [], 0, limit, False

    def give_back(self) -> None:
        self.waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.characters > self.limit:
            self.ended = True  # for this row: more of it is not held in memory
            raise StopIteration
        line = self.waiting.popleft() if self.waiting else self.text.readline()
        if not line:
            self.ended = True
            raise StopIteration
        self.taken.append(line)
        self.characters += len(line)
        return line


def _numbered(
    dialect: Dialect, *, doubted_from: int
) -> Iterator[tuple[int, list[str], str | None]]:
    """(line it starts on, values, what is wrong with its quotes) for each row after the header.

    From row ``doubted_from`` on, a row whose quote is not closed, or closed in the middle of a
    later line's value, gives its first line only, read as if it had no quotes; the next line
    starts a row of its own. So a stray quote costs one line, not those after it. Rows before it
    were read by Arrow, which is not as strict.
    """
    lines = _Lines(dialect.file)
    reader = dialect.reader(lines)
    line, number = 1 + dialect.skip, -1
    with lines.text:
        for _ in range(dialect.skip):
            lines.text.readline()
        while True:
            doubted = number >= doubted_from
            lines.start_row(ROW_CHARACTERS if doubted else sys.maxsize)
            row = next(reader, None)
            if row is None and not lines.taken:
                return
            wrong = None
            if doubted and (lines.ended or len(lines.taken) > 1):
                wrong = _wrong_quotes(dialect, lines)
            if wrong is not None:
                lines.give_back()
                reader = dialect.reader(lines)
                row = lines.taken[0].rstrip("\r\n").split(dialect.delimiter)
            if row:
                if number >= 0:
                    yield line, row, wrong
                number += 1
            line += len(lines.taken)


def _wrong_quotes(dialect: Dialect, lines: _Lines) -> str | None:
    if lines.ended:
        return "a quote is opened and never closed"
    try:
        next(dialect.reader(iter(lines.taken), strict=True))
    except csv.Error:
        return "a quote is opened and closed inside a value of a later line"
    return None


class _LineCursor:
    """Finds the line of a row by reading the file once, forwards, as far as it is asked."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.rows: Iterator[tuple[int, list[str], str | None]] | None = None
        self.next_row = 0
        self.line = 0

    def line_of(self, row: int) -> int:
        if self.rows is None:
            self.rows = _numbered(self.dialect, doubted_from=sys.maxsize)
        while self.next_row <= row:
            self.line = next(self.rows)[0]
            self.next_row += 1
        return self.line


def _slow(dialect: Dialect, wanted: Sequence[str], rows: int, *, skip: int) -> Iterator[Block]:
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
            assumed=dialect.assumed,
        )

    for number, (line, row, reason) in enumerate(_numbered(dialect, doubted_from=skip)):
        if number < skip:
            continue
        if reason is not None:
            pass
        elif len(row) != width:
            reason = f"the row has {len(row)} values, the header {width}{_why(row)}"
        elif not all(row[place].isascii() or _encodable(row[place]) for place in places):
            reason = f"not {dialect.encoding}"
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


def _why(row: Sequence[str]) -> str:
    """A quote that follows a blank opens nothing."""
    if any(value[:1].isspace() and value.lstrip().startswith('"') for value in row):
        return "; a blank stands before a quote"
    return ""


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
