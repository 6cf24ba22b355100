"""All good rows of a source, split by split, and what was assumed of its files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from llmembed.texts.blocks import Block
from llmembed.texts.checks import check
from llmembed.texts.columns import Columns, NoColumnError, listed
from llmembed.texts.quarantine import BadRow, QuarantineWriter
from llmembed.texts.source import Opened

NO_LABEL = "no label in "


def good_rows(
    opened: Opened, columns: Columns, writer: QuarantineWriter
) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """Tables by split and notes; bad rows go to ``writer``. A split that may lack labels and does
    is left out, with a note. Raises ``DataError``."""
    tables: dict[str, pa.Table] = {}
    notes: dict[str, str] = {}
    assumed: dict[str, dict[str, None]] = {}
    labels = {column for column, _ in columns.tasks.values()}
    for split, blocks in opened.blocks.items():
        optional = split in opened.may_lack_labels
        try:
            table, bad = _rows_of(blocks, columns, assumed, None if optional else writer)
        except NoColumnError as error:
            if not optional or error.column not in labels:
                raise
            notes[f"no_{split}"] = f"the {split} rows have no labels and are left out: {error}"
            continue
        if optional and not table.num_rows and bad and all(NO_LABEL in row.reason for row in bad):
            notes[f"no_{split}"] = f"the {split} rows have no labels and are left out"
            continue
        writer.add(bad)
        tables[split] = table
    for split in sorted(opened.may_lack_labels & set(tables)):
        if _all_withheld(tables[split], tables.get("train"), labels):
            del tables[split]
            notes[f"no_{split}"] = f"the {split} rows have no labels but -1 and are left out"
    if assumed:
        notes["assumed"] = assumptions(assumed)
    return tables, notes


def _rows_of(
    blocks: Iterator[Block],
    columns: Columns,
    assumed: dict[str, dict[str, None]],
    writer: QuarantineWriter | None,
) -> tuple[pa.Table, list[BadRow]]:
    good: list[pa.Table] = []
    bad: list[BadRow] = []
    for block in blocks:
        if block.assumed:
            assumed.setdefault(block.assumed, {})[block.file] = None
        checked = check(block, columns.fields, columns)
        if writer is None:
            bad += checked.bad
        else:
            writer.add(checked.bad)
        good.append(checked.table)
    return pa.concat_tables(good) if good else pa.table({}), bad


def _all_withheld(table: pa.Table, train: pa.Table | None, labels: Collection[str]) -> bool:
    """Whether some column of labels holds nothing but -1, which no training row has."""
    for column in labels:
        values = table[column]
        if train is None or not pa.types.is_string(values.type):
            continue
        known = pc.unique(train[column]).to_pylist() if train.num_rows else []
        if pc.unique(values).to_pylist() == ["-1"] and "-1" not in known:
            return True
    return False


def assumptions(assumed: Mapping[str, Mapping[str, None]]) -> str:
    """What was taken for granted of which files."""
    return "; ".join(
        f"{listed((PurePosixPath(file).name for file in files), 4)}: {words}"
        for words, files in assumed.items()
    )


def way_out(reason: str) -> str:
    """The setting that reads such rows after all, for a message."""
    if reason == "not UTF-8":
        return " (data.encoding, --encoding, says what they are)"
    if "holds a list, not a name" in reason:
        return " (--multi, data.multi=true, reads several labels a text)"
    if reason.startswith(NO_LABEL):
        return " (of several labels a text, data.empty_is_none=true reads this as none of them)"
    return ""
