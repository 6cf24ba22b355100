"""What a file's bytes are: UTF-8, text in another encoding, or no text at all.

Marks and NULs tell UTF-16 and UTF-32 for certain, and these are read. Which of the encodings of
one byte a letter was meant can't be told from bytes: that is asked for, never guessed.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from llmembed.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

UTF8 = "utf-8"
START_BYTES = 4096
"""So many from the start are looked at for NULs."""
BROKEN_LINES = 0.1
"""Where more of the lines of a sample are not UTF-8, the file as a whole is not."""
MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_ENDING = "a {} file: let its name end in {}"
NO_TEXT = (
    (b"\x1f\x8b", _ENDING.format("gzip", ".gz")),
    (b"BZh", _ENDING.format("bzip2", ".bz2")),
    (b"\x28\xb5\x2f\xfd", _ENDING.format("Zstandard", ".zst")),
    (b"\x04\x22\x4d\x18", _ENDING.format("lz4", ".lz4")),
    (b"PK\x03\x04", "a zip archive or an Excel workbook: unpack it, or save the sheet as csv"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook: save the sheet as csv"),
    (b"PAR1", _ENDING.format("Parquet", ".parquet")),
    (b"ARROW1", _ENDING.format("Arrow", ".arrow")),
    (b"%PDF-", "a PDF: llmembed reads csv, tsv, JSON, Parquet and Arrow files"),
    (b"SQLite format 3", "a SQLite database: write the rows to a csv or Parquet file"),
    (b"version https://git-lfs.github.com", "a Git LFS pointer, not the file: run git lfs pull"),
    (b"<!DOCTYPE html", "a web page: the download was not the file"),
    (b"<html", "a web page: the download was not the file"),
)
_BROKEN = "llmembed-broken"


def _mark_broken(error: UnicodeError) -> tuple[str, int]:
    """What an encoding does not know becomes half a surrogate pair, and then a byte that is no
    UTF-8: readers set such a row aside."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error(_BROKEN, _mark_broken)


def refuse_no_text(start: bytes, address: str) -> None:
    """Raise ``DataError`` where the first bytes are those of a file that is no text."""
    lowered = start[:64].lower()
    for mark, words in NO_TEXT:
        if lowered.startswith(mark.lower()):
            raise DataError(f"{address} is {words}")


def told_by(start: bytes) -> str | None:
    """The encoding that a mark or NULs tell for certain, or None: UTF-8 as far as known."""
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding
    start = start[:START_BYTES]
    for encoding, place in (("utf-16-le", 1), ("utf-16-be", 0)):
        nuls, letters = start[place::2].count(0), start[1 - place :: 2].count(0)
        if len(start) >= 8 and nuls > len(start) / 5 and letters < len(start) / 40:
            return encoding
    return None


def sample_text(sample: bytes, encoding: str, address: str, *, asked: bool) -> str:
    """The text of a file's first bytes, which may end in the middle of a character.

    Raises ``DataError`` when it was taken for UTF-8 (not ``asked`` for) and its lines are not.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == UTF8 else encoding)
    try:
        return decoder().decode(sample)
    except UnicodeError:
        if not asked:
            _refuse_broken(sample, address)
        try:
            return decoder("replace").decode(sample)
        except UnicodeError as error:  # of UTF-16 without its mark
            raise DataError(f"{address} can't be read as {encoding}: {error}") from None


def _refuse_broken(sample: bytes, address: str) -> None:
    lines = [line for line in re.split(rb"[\r\n]+", sample)[: 1 << 14] if line.strip()]
    if len(lines) > 1 and not sample.endswith((b"\n", b"\r")):
        lines.pop()  # it may be cut within a character
    broken = [line for line in lines if not _is_utf8(line)]
    if broken and (broken[0] is lines[0] or len(broken) > BROKEN_LINES * len(lines)):
        raise DataError(
            f"{address} is not UTF-8 ({len(broken)} of the first {len(lines)} lines); "
            f"{hint(sample)}"
        )


def hint(sample: bytes) -> str:
    """What encoding bytes that are no UTF-8 may be in, and how to say so."""
    high = sum(byte >= 0x80 for byte in sample)
    letters = high + len(re.findall(rb"[A-Za-z]", sample))
    if high > 0.3 * max(letters, 1):
        return (
            "say which encoding it is in by --encoding (data.encoding), such as cp1251, gb18030, "
            "shift_jis or euc_kr"
        )
    try:
        sample.decode("cp1252")
        likely = "cp1252"
    except UnicodeDecodeError:
        likely = "latin-1"
    return f"it may be {likely}: say so by --encoding {likely} (data.encoding={likely})"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode(UTF8)
    except UnicodeDecodeError:
        return False
    return True


def as_utf8(stream: pa.NativeFile, encoding: str) -> pa.NativeFile:
    """``stream`` in UTF-8; what ``encoding`` does not know becomes bytes that are no UTF-8."""
    import pyarrow as pa

    decoder = codecs.getincrementaldecoder(encoding)(_BROKEN)

    def recoded(data: pa.Buffer) -> bytes:
        text = decoder.decode(bytes(data), final=len(data) == 0)
        return text.encode(UTF8, "surrogateescape")

    return pa.TransformInputStream(stream, recoded)
