"""Data sets of the Hugging Face hub: any id through ``datasets``, benchmarks from the hub's
Parquet files. A revision is resolved to its commit before anything is downloaded."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmembed.errors import DataError
from llmembed.texts.columns import listed
from llmembed.texts.naming import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps its own Parquet copy of a data set."""


@dataclass(frozen=True, kw_only=True)
class HubParquet:
    """Parquet files of one hub data set. ``files``: our split -> patterns of paths (``*`` crosses
    folders); ``rename``: hub column -> ours; ``classes``: our column -> names of its integers,
    where the file itself does not say."""

    id: str
    files: Mapping[str, Sequence[str]]
    revision: str = "main"
    rename: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def resolved(hub_id: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit a revision stands for now, and the paths of its files."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(hub_id, revision=revision)
    except Exception as error:  # the client raises errors of several libraries
        raise DataError(
            f"can't reach data set {hub_id} on the hub ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}); "
            "set LLMEMBED_DATA_DIR to a local copy to do without"
        ) from error
    return str(info.sha), [file.rfilename for file in info.siblings or []]


def load_parquet(source: HubParquet) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """Tables by split and notes. Each table has an extra column ``file``: its path on the hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from huggingface_hub import hf_hub_download

    from llmembed.texts.blocks import with_class_names

    commit, paths = resolved(source.id, source.revision)
    tables: dict[str, pa.Table] = {}
    for split, patterns in source.files.items():
        chosen = [p for p in sorted(paths) if any(fnmatch.fnmatch(p, glob) for glob in patterns)]
        if not chosen:
            if split == "valid":
                continue
            raise DataError(
                f"data set {source.id} at {commit} has no file {listed(patterns)}; "
                f"its files are {listed(paths)}"
            )
        parts = []
        for path in chosen:
            local = hf_hub_download(source.id, path, repo_type="dataset", revision=commit)
            part = with_class_names(pq.read_table(local)).replace_schema_metadata()
            names = [source.rename.get(name, name) for name in part.column_names]
            part = part.rename_columns(names)
            for column, classes in source.classes.items():
                if column in names and pa.types.is_integer(part[column].type):
                    named = pa.array(list(classes)).take(part[column].combine_chunks())
                    part = part.set_column(names.index(column), column, named)
            parts.append(part.append_column("file", pa.array([path] * len(part), pa.string())))
        tables[split] = pa.concat_tables(parts, promote_options="default")
    return tables, {"source": f"hub data set {source.id}", "revision": commit}


def load_hub(
    hub_id: str,
    config: str | None,
    revision: str | None,
    splits: Mapping[str, str],
    labels: Sequence[str],
) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """Any data set through ``datasets``; ``splits``: ours -> theirs. A test split whose
    ``labels`` columns are withheld (all -1, as in GLUE) is left out, with a note. Raises
    ``DataError``."""
    import datasets

    from llmembed.texts.blocks import with_class_names

    commit, _ = resolved(hub_id, revision)
    try:
        loaded = datasets.load_dataset(hub_id, config, revision=commit)
    except Exception as error:  # as above
        raise DataError(f"can't load data set {hub_id} at {commit}: {error}") from error
    wanted = dict(splits)
    if not wanted:
        wanted = {SPLITS[name]: name for name in reversed(list(loaded)) if name in SPLITS}
    tables: dict[str, pa.Table] = {}
    notes = {"source": f"hub data set {hub_id}", "revision": commit}
    for ours, theirs in wanted.items():
        if theirs not in loaded:
            raise DataError(f"data set {hub_id} has no split {theirs!r}; it has {listed(loaded)}")
        part = loaded[theirs]
        table = part.data.table.combine_chunks()
        table = table.replace_schema_metadata(part.features.arrow_schema.metadata)
        table = with_class_names(table).replace_schema_metadata()
        held = [table[column] if column in table.column_names else None for column in labels]
        if ours != "train" and any(c is None or c.null_count == len(c) for c in held):
            notes[f"no_{ours}"] = f"split {theirs} has no labels and is left out"
            continue
        tables[ours] = table
    if "train" not in tables:
        raise DataError(f"data set {hub_id} has no split named train; name one of {listed(loaded)}")
    return tables, notes
