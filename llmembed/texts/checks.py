"""What may be wrong inside a block: no text, no label, a wrong type. Whole columns at a time.

Good rows come out in one form whatever the source: text string, ``one`` a trimmed string,
``many`` a list of trimmed strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmembed.errors import DataError
from llmembed.texts.blocks import Block
from llmembed.texts.columns import Columns, Field, printable
from llmembed.texts.lists import LIST, PLAINLY, cut
from llmembed.texts.quarantine import BadRow
from llmembed.texts.spelling import TRIMMED

MOST_EXACT = 2**53
TAG = r"^(O|[BI]-.+)$"
LABELS = pa.list_(pa.string())


@dataclass(frozen=True, kw_only=True)
class Checked:
    """``table`` and ``rows`` of the good rows, ``kept`` their places in the block; ``bad`` in
    the order of their lines."""

    table: pa.Table
    rows: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    bad: tuple[BadRow, ...]


class _Reasons:
    """The first thing found wrong with each row of a block."""

    def __init__(self, rows: int) -> None:
        self.codes = np.zeros(rows, dtype=np.int64)
        self.texts = [""]

    def add(self, wrong: pa.Array | npt.NDArray[np.bool_], reason: str) -> None:
        if isinstance(wrong, (pa.Array, pa.ChunkedArray)):
            wrong = pc.fill_null(wrong, False).to_numpy(zero_copy_only=False)
        new = np.asarray(wrong, dtype=bool) & (self.codes == 0)
        if new.any():
            self.texts.append(reason)
            self.codes[new] = len(self.texts) - 1


def check(block: Block, fields: Sequence[Field], columns: Columns | None = None) -> Checked:
    """The good rows of a block and the bad ones with their reasons. Raises ``DataError`` when a
    whole column is of a type that can't be what it is named for."""
    reasons = _Reasons(block.table.num_rows)
    found: dict[str, pa.Array] = {}
    for field in fields:
        values = block.table[field.column].combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        where = f"column {field.column!r} of {block.file}"
        if field.role == "text":
            found[field.column] = _text(values, where, reasons)
        elif field.role == "one":
            found[field.column] = _one(values, field.column, where, reasons)
        else:
            found[field.column] = _many(values, field, where, reasons)
    if columns is not None and columns.has_words:
        _check_words(found, columns, reasons)
    kept = np.flatnonzero(reasons.codes == 0)
    bad = list(block.bad)
    for place in np.flatnonzero(reasons.codes):
        bad.append(
            BadRow(
                file=block.file,
                line=block.line_of(int(block.rows[place])),
                reason=reasons.texts[reasons.codes[place]],
                row=_shown(block.table, int(place)),
            )
        )
    bad.sort(key=lambda row: row.line)
    table = pa.table(found)
    if len(kept) < table.num_rows:
        table = table.take(pa.array(kept))
    return Checked(table=table, rows=block.rows[kept], kept=kept, bad=tuple(bad))


def _shown(table: pa.Table, place: int) -> dict[str, object]:
    row: dict[str, object] = {}
    for name in table.column_names:
        value = table[name][place]
        try:
            row[name] = value.as_py()
        except UnicodeDecodeError:
            row[name] = value.cast(pa.binary()).as_py()
    return row


def _string(values: pa.Array, what: str, reasons: _Reasons) -> pa.Array:
    """Strings that are valid UTF-8; the others null, with a reason. Parquet does not check."""
    if not pa.types.is_string(values.type):
        raw = values.cast(pa.large_binary())
    else:
        try:
            values.validate(full=True)
            return values
        except pa.ArrowInvalid:
            raw = values.cast(pa.large_binary())
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        pass
    wrong = np.zeros(len(raw), dtype=bool)
    decoded: list[str | None] = []
    for place, value in enumerate(raw.to_pylist()):
        try:
            decoded.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError:
            decoded.append(None)
            wrong[place] = True
    reasons.add(wrong, f"{what} not UTF-8".strip())
    return pa.array(decoded, pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _text(values: pa.Array, where: str, reasons: _Reasons) -> pa.Array:
    if pa.types.is_null(values.type):
        values = values.cast(pa.string())
    if not _is_text(values.type):
        raise DataError(f"{where} holds {values.type}, not texts")
    strings = _string(values, "", reasons)
    reasons.add(strings.is_null(), "no text")
    reasons.add(pc.equal(strings, ""), "the text is empty")
    reasons.add(pc.equal(pc.utf8_ltrim_whitespace(strings), ""), "the text is white space only")
    return strings


def _one(values: pa.Array, column: str, where: str, reasons: _Reasons) -> pa.Array:
    kind = values.type
    if pa.types.is_nested(kind):
        raise DataError(
            f"{where} holds {kind}: say --multi (data.multi=true), or name its kind in data.kinds"
        )
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values, whole = _whole(values)
        reasons.add(pc.invert(whole), f"label {column!r} is not a whole number or a name")
    if _is_text(kind):
        strings = _trimmed(_string(values, f"label {column!r} is", reasons))
        _refuse_lists(strings, where)
    else:
        strings = values.cast(pa.string())
    reasons.add(strings.is_null(), f"no label in {column!r}")
    return strings


def _trimmed(strings: pa.Array) -> pa.Array:
    """Without white space and what can't be seen at both ends; null where nothing is left."""
    strings = pc.utf8_trim(strings, characters=TRIMMED)
    return pc.if_else(pc.equal(strings, ""), None, strings)


def _whole(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Floats and decimals as the whole numbers they are, null where they are none, and which are:
    integers with gaps as pandas writes them, a database's numbers."""
    if pa.types.is_decimal(values.type):
        strings = values.cast(pa.string())
        whole = pc.match_substring_regex(strings, r"^-?[0-9]+(\.0*)?$")
        plain = pc.replace_substring_regex(strings, r"\.0*$", "")
        return pc.if_else(whole, plain, None), whole
    values = values.cast(pa.float64())
    values = pc.if_else(pc.is_nan(values), None, values)
    # Past 2**53 a float is no longer one whole number; infinity is none either.
    whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), float(MOST_EXACT)))
    return pc.if_else(whole, values, None).cast(pa.int64()), whole


def _refuse_lists(strings: pa.Array, where: str) -> None:
    """Raise ``DataError`` where every value of a column of one label each is a list."""
    given = strings.drop_null()
    if not len(given) or not given[0].as_py().startswith("["):
        return
    if pc.all(pc.match_substring_regex(given, PLAINLY)).as_py():
        raise DataError(
            f"{where} holds lists, such as {printable(given[0].as_py(), 60)}: say --multi "
            "(data.multi=true) to read several labels a text"
        )


def _many(values: pa.Array, field: Field, where: str, reasons: _Reasons) -> pa.Array:
    """An empty list stands for "none of them"; an empty string and null are no label, unless
    ``field.empty_is_none``."""
    column = field.column
    if pa.types.is_null(values.type):
        values = values.cast(pa.list_(pa.string()))
    elif _is_text(values.type):
        strings = _trimmed(_string(values, f"{column!r} is", reasons))
        if pc.any(pc.match_substring_regex(strings, LIST)).as_py():
            values = pa.array([_cut(s, field) for s in strings.to_pylist()], LABELS)
            unread = pc.and_(values.is_null(), strings.is_valid())
            reasons.add(unread, f"the list in {column!r} can't be read")
        elif field.separator is None:
            values = _without_empty(pc.utf8_split_whitespace(strings))
        else:
            values = _without_empty(pc.split_pattern(strings, field.separator))
    elif not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        raise DataError(f"{where} holds {values.type}, not lists or strings of several labels")
    if field.empty_is_none:
        values = pc.if_else(values.is_null(), pa.scalar([], values.type), values)
    reasons.add(values.is_null(), f"no label in {column!r}")
    flat = pc.list_flatten(values)
    if pa.types.is_nested(flat.type):
        raise DataError(f"{where} holds lists of {flat.type}, not of names or whole numbers")
    if pa.types.is_floating(flat.type) or pa.types.is_decimal(flat.type):
        flat, _ = _whole(flat)
    parents = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
    inner = _Reasons(len(flat))
    flat = _string(flat, "", inner) if _is_text(flat.type) else flat.cast(pa.string())
    flat = pc.utf8_trim_whitespace(flat)
    empty = pc.or_(flat.is_null(), pc.fill_null(pc.equal(flat, ""), False))
    wrong = np.zeros(len(values), dtype=bool)
    wrong[parents[empty.to_numpy(zero_copy_only=False)]] = True
    reasons.add(wrong, f"a value in the list {column!r} is empty or not UTF-8")
    return _relist(values, flat)


def _cut(text: str | None, field: Field) -> list[str] | None:
    return None if text is None else cut(text, field.separator)


def _relist(values: pa.Array, flat: pa.Array) -> pa.Array:
    """Lists of the lengths of ``values`` over new items; null lists stay null."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=values.is_null())


def _without_empty(values: pa.Array) -> pa.Array:
    """Empty pieces between two separators are no labels."""
    flat = pc.utf8_trim_whitespace(pc.list_flatten(values))
    full = pc.not_equal(flat, "").to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
    lengths = np.bincount(parents[full], minlength=len(values))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), flat.filter(pa.array(full)), mask=values.is_null()
    )


def _check_words(found: dict[str, pa.Array], columns: Columns, reasons: _Reasons) -> None:
    """As many tags as words, and every tag ``O``, ``B-…`` or ``I-…``."""
    if columns.words is not None:
        words = found[columns.words]
    else:
        assert columns.text is not None
        words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(found[columns.text]))
    counts = pc.list_value_length(words)
    reasons.add(pc.equal(counts, 0), "no words")
    for column, kind in columns.tasks.values():
        if kind != "tokens":
            continue
        tags = found[column]
        reasons.add(
            pc.not_equal(counts, pc.list_value_length(tags)),
            f"the number of tags in {column!r} is not the number of words",
        )
        known = pc.match_substring_regex(pc.list_flatten(tags), TAG)
        parents = pc.list_parent_indices(tags).to_numpy(zero_copy_only=False)
        wrong = np.zeros(len(tags), dtype=bool)
        wrong[parents[~pc.fill_null(known, False).to_numpy(zero_copy_only=False)]] = True
        reasons.add(wrong, f"a tag in {column!r} is not O, B-… or I-…")
