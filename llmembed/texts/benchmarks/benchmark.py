"""What one benchmark data set is: where its rows are, how they are named, how many there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.errors import DataError
from llmembed.texts.columns import Columns, listed
from llmembed.texts.hub import HubParquet, load_parquet

if TYPE_CHECKING:
    import pyarrow as pa

Tables = dict[str, "pa.Table"]
DATA_DIR = "LLMEMBED_DATA_DIR"
ROWS = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One data set by name.

    ``official``: rows of each split in the data set's own release. ``folders``: names it may have
    under ``LLMEMBED_DATA_DIR``, each with a ``SPLIT.parquet`` for every entry of ``mirror``
    (ours -> file stem). ``hub``: where to get it otherwise. ``from_hub`` brings hub tables into
    the mirror's columns; ``prepare`` applies options to the tables of either. ``make`` replaces
    both places for data that is made on the spot. ``metrics``: task -> by what it is judged unless
    the experiment says otherwise, where its papers report another metric than its kind's own.
    """

    name: str
    title: str
    columns: Columns
    official: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    mirror: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    hub: HubParquet | None = None
    from_hub: Callable[[Tables], Tables] | None = None
    prepare: Callable[[Tables, Mapping[str, Any]], Tables] | None = None
    make: Callable[[], tuple[Tables, dict[str, str]]] | None = None
    options: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    hub_notes: Mapping[str, str] = field(default_factory=dict)

    def load(self, options: Mapping[str, Any]) -> tuple[Tables, dict[str, str]]:
        """Tables by split and notes. Raises ``DataError``."""
        if self.make is not None:
            tables, notes = self.make()
        else:
            tables, notes = self._from_mirror() or self._from_hub()
        if self.prepare is not None:
            tables = self.prepare(tables, options)
        return tables, {**self.notes, **notes}

    def _from_mirror(self) -> tuple[Tables, dict[str, str]] | None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        root = os.environ.get(DATA_DIR)
        if not root:
            return None
        if not Path(root).expanduser().is_dir():
            raise DataError(f"{DATA_DIR} is {root}, which is no folder")
        for name in self.folders:
            folder = Path(root).expanduser() / name
            if not folder.is_dir():
                continue
            tables: Tables = {}
            for split, stem in self.mirror.items():
                file = folder / f"{stem}.parquet"
                try:
                    tables[split] = pq.read_table(file)
                except (OSError, pa.ArrowInvalid) as error:
                    raise DataError(f"can't read {file}: {error}") from error
            return tables, {"source": f"local copy {name}"}
        return None

    def _from_hub(self) -> tuple[Tables, dict[str, str]]:
        if self.hub is None:
            raise DataError(f"{self.name} has no source but {DATA_DIR}; set it to a local copy")
        tables, notes = load_parquet(self.hub)
        if self.from_hub is not None:
            tables = self.from_hub(tables)
        return tables, {**notes, **self.hub_notes}

    def partial_sentence(self, counts: Mapping[str, int]) -> str | None:
        """How these rows differ in number from the official ones; None when they do not."""
        differing = [
            f"{counts.get(split, 0)} of {rows} {ROWS[split]} rows"
            for split, rows in self.official.items()
            if counts.get(split, 0) != rows
        ]
        return listed(differing) or None
