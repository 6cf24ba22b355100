"""``predict``: label files of any size on Ray Data, in bounded memory, resumable."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from llmembed.contract import Stage, Usage
from llmembed.errors import ConfigError, DataError
from llmembed.pipelines.assembly import make_runtime
from llmembed.pipelines.labelling import Chunks, MakeLabeller
from llmembed.pipelines.printing import console, write_json

CHUNK_ROWS = 2048
FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What ``predict`` did: ``rows`` labelled in all, ``reused_rows`` by an earlier run."""

    rows: int
    reused_rows: int
    bad_rows: int
    seconds: float
    usage: Usage
    output: str


def predict(
    *,
    model: str,
    data: Sequence[str],
    text_column: str,
    output: str,
    scores: bool = False,
    unknown_below: float | None = None,
    files: str | None = None,
    address: str | None = None,
    local: bool = False,
    json_path: str | None = None,
) -> Predicted:
    """Label every text of ``data`` with ``model`` and write ``output``.

    Raises:
        ConfigError: ``output`` has no known ending, or holds the labels of another run.
        DataError: ``data`` can't be read.
        ModelError: ``model`` can't be found.
    """
    from llmembed.methods import load
    from llmembed.pipelines.models import find_classifier

    start = time.perf_counter()
    target = Path(output)
    if target.suffix not in ("", *FORMATS):
        raise ConfigError(f"--output {output}: write {', '.join(FORMATS)} or a folder")
    if unknown_below is not None and not 0 <= unknown_below <= 1:
        raise ConfigError(f"--unknown-below {unknown_below}: a score lies between 0 and 1")
    with make_runtime(files=files, address=address, local=local) as runtime:
        folder = find_classifier(model, files=runtime.files)
        classifier = load(folder)
        parts = target if target.suffix == "" else target.with_name(target.name + ".parts")
        readers, bad = _readers(data, text_column, parts)
        _claim(parts, folder, data, text_column, scores, unknown_below)
        done = frozenset(path.stem for path in parts.glob("part-*.parquet"))
        reused = sum(pq.read_metadata(parts / f"{name}.parquet").num_rows for name in done)
        chunks = [Chunks(number=n, reader=reader, done=done) for n, reader in enumerate(readers)]
        thresholds = {t.name: unknown_below for t in classifier.tasks if unknown_below is not None}
        make = MakeLabeller.of(folder, parts, scores, thresholds)
        rows, usage = 0, Usage()
        for table in runtime.map_texts(
            chunks, [Stage(make=make, rows=1, model=True)], label="predict"
        ):
            for record in table.to_pylist():
                rows += record["rows"]
                usage += Usage.from_json(json.loads(record["usage"]))
    written = sorted(parts.glob("part-*.parquet"))
    if not written:
        raise DataError(f"{', '.join(data)}: no row with a text in column {text_column!r}")
    if target.suffix:
        _join(written, target)
        shutil.rmtree(parts)
    result = Predicted(
        rows=rows + reused,
        reused_rows=reused,
        bad_rows=bad(),
        seconds=time.perf_counter() - start,
        usage=usage,
        output=output,
    )
    _say(result)
    write_json(json_path, {**vars(result), "usage": usage.to_json()})
    return result


def _readers(
    data: Sequence[str], text_column: str, parts: Path
) -> tuple[list[Any], Callable[[], int]]:
    """The readers of ``data``, and a function that counts the rows they set aside."""
    from llmembed.texts import readers

    quarantine = parts.with_name(parts.name.removesuffix(".parts") + ".quarantine")
    made = readers(list(data), text_column, chunk_rows=CHUNK_ROWS, quarantine_folder=quarantine)

    def count() -> int:
        return sum(
            sum(1 for _ in path.open(encoding="utf-8")) for path in quarantine.glob("*.jsonl")
        )

    return made, count


def _claim(
    parts: Path,
    folder: Path,
    data: Sequence[str],
    text_column: str,
    scores: bool,
    unknown_below: float | None,
) -> None:
    """Note in ``parts`` whose labels they are; raise if they are another run's."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    claim = {
        "classifier": digest.hexdigest(),
        "data": [_identity(source) for source in data],
        "text_column": text_column,
        "scores": scores,
        "unknown_below": unknown_below,
        "chunk_rows": CHUNK_ROWS,
    }
    parts.mkdir(parents=True, exist_ok=True)
    path = parts / "run.json"
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in claim if earlier.get(key) != claim[key]]
        if changed:
            raise ConfigError(
                f"{parts} holds the labels of another run (its {', '.join(changed)} differ): "
                "choose another --output, or remove that folder"
            )
    elif any(parts.iterdir()):
        raise ConfigError(f"{parts} is not empty and holds no run of ours: choose another --output")
    path.write_text(json.dumps(claim, indent=1), encoding="utf-8")


def _identity(source: str) -> list[Any]:
    """A source's name with the size and time of its files, so that changed data is noticed."""
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file())
    else:
        found = (
            [path]
            if path.is_file()
            else sorted(Path().glob(source))
            if "://" not in source and not path.is_absolute()
            else []
        )
    return [source, [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in found]]


def _join(parts: Sequence[Path], target: Path) -> None:
    """All parts, in the order of the data, as one file; written aside, then renamed."""
    aside = target.with_name(f".{target.name}")
    schema = pq.read_schema(parts[0])
    tables: Iterator[pa.Table] = (pq.read_table(path, schema=schema) for path in parts)
    if target.suffix == ".parquet":
        with pq.ParquetWriter(aside, schema) as writer:
            for table in tables:
                writer.write_table(table)
    elif target.suffix == ".jsonl":
        with aside.open("w", encoding="utf-8") as lines:
            for table in tables:
                lines.writelines(
                    json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()
                )
    else:
        flat = _csv_schema(schema)
        with pa_csv.CSVWriter(aside, flat) as writer:
            for table in tables:
                writer.write_table(_for_csv(table).cast(flat))
    aside.replace(target)


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [pa.field(f.name, pa.string() if pa.types.is_list(f.type) else f.type) for f in schema]
    )


def _for_csv(table: pa.Table) -> pa.Table:
    """Lists of labels joined by commas: csv knows no lists."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            joined = [None if v is None else ",".join(v) for v in table[field.name].to_pylist()]
            table = table.set_column(index, field.name, pa.array(joined, pa.string()))
    return table


def _say(result: Predicted) -> None:
    out = console()
    out.print(f"labelled {result.rows:,} texts in {result.seconds:.1f} s -> {result.output}")
    if result.reused_rows:
        out.print(f"{result.reused_rows:,} of them were labelled by an earlier run")
    if result.bad_rows:
        out.print(f"{result.bad_rows:,} bad rows set aside beside the output, with their reasons")
