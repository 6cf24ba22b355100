"""``predict``: label files of any size on Ray Data, in bounded memory, resumable."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from llmembed.contract import Classifier, Stage, Usage
from llmembed.errors import ConfigError, DataError
from llmembed.pipelines.assembly import make_runtime, tracking_files
from llmembed.pipelines.printing import check_writable, console, write_json

if TYPE_CHECKING:
    from llmembed.pipelines.parts import Parts

CHUNK_ROWS = 1024
"""Rows that are labelled at once and lost at most by a kill, for each actor."""
FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What ``predict`` did: ``rows`` labelled in all, ``reused_rows`` of them by an earlier run;
    ``bad_rows`` were set aside in ``quarantine``."""

    rows: int
    reused_rows: int
    bad_rows: int
    seconds: float
    usage: Usage
    output: str
    quarantine: str


def predict(
    *,
    model: str,
    data: Sequence[str],
    text_column: str,
    output: str,
    keep: Sequence[str] = (),
    scores: bool = False,
    unknown_below: float | Literal["chosen"] | None = None,
    max_bad_fraction: float = 0.01,
    tracking_uri: str | None = None,
    files: str | None = None,
    address: str | None = None,
    local: bool = False,
    json_path: str | None = None,
) -> Predicted:
    """Label every text of ``data`` with ``model`` and write ``output``: a file, or a folder of
    parts, here or in an object store; columns of ``keep`` are handed on. ``unknown_below``: a
    score, or ``chosen`` for the one chosen on validation for the experiment's wanted precision.

    Raises:
        ConfigError: ``output`` has no known ending, or holds the labels of another run.
        DataError: ``data`` can't be read, or more than ``max_bad_fraction`` of its rows are bad;
            the labels of the others are then kept for the next run.
        ModelError: ``model`` can't be found.
    """
    from llmembed.methods import load
    from llmembed.pipelines.labelling import Chunks, MakeLabeller
    from llmembed.pipelines.models import find_classifier
    from llmembed.pipelines.parts import Parts
    from llmembed.pipelines.prompting import refuse_endpoint
    from llmembed.pipelines.writing import write_whole
    from llmembed.texts import readers

    start = time.perf_counter()
    suffix = PurePosixPath(output).suffix
    if suffix not in ("", *FORMATS):
        raise ConfigError(f"--output {output}: write {', '.join(FORMATS)} or a folder")
    check_writable(json_path)
    _check_apart(output, data)
    for option, share in (
        ("--unknown-below", None if unknown_below == "chosen" else unknown_below),
        ("--max-bad-fraction", max_bad_fraction),
    ):
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"{option} {share}: expected a number between 0 and 1")
    with make_runtime(files=files, address=address, local=local) as runtime:
        place = tracking_files(runtime.files)
        folder = find_classifier(model, files=place, tracking_uri=tracking_uri)
        classifier = load(folder)
        refuse_endpoint(classifier, folder)
        below = _thresholds(classifier, folder, unknown_below)
        _check_columns(classifier, keep, scores)
        parts = Parts(address=output if not suffix else f"{output}.parts")
        quarantine = f"{_absolute(output).rstrip('/')}.quarantine"
        made = readers(list(data), text_column, CHUNK_ROWS, keep=keep, quarantine_folder=quarantine)
        _claim(
            parts,
            {
                "classifier": _digest(folder),
                "data": _identity(data),
                "text_column": text_column,
                "keep": list(keep),
                "scores": scores,
                "unknown_below": below,
                "chunk_rows": CHUNK_ROWS,
            },
        )
        done = frozenset(parts.names())
        if not done:
            _clear(quarantine)
        reused = sum(parts.rows(name) for name in done)
        make = MakeLabeller.of(
            folder, parts=parts, keep=tuple(keep), scores=scores, unknown_below=below
        )
        chunks = [Chunks(number=n, reader=reader, done=done) for n, reader in enumerate(made)]
        stages = [Stage(make=make, rows=1, model=True)]
        rows, usage = 0, Usage()
        for table in runtime.map_texts(chunks, stages, label="predict"):
            for record in table.to_pylist():
                _check_seen(parts, record["part"])
                rows += record["rows"]
                usage += Usage.from_json(json.loads(record["usage"]))
    bad = _count_lines(quarantine)
    _check_rows(rows + reused, bad, max_bad_fraction, data, quarantine)
    parts.tidy()
    if suffix:
        write_whole(parts.tables(), output)
        parts.remove()
    result = Predicted(
        rows=rows + reused,
        reused_rows=reused,
        bad_rows=bad,
        seconds=time.perf_counter() - start,
        usage=usage,
        output=output,
        quarantine=quarantine,
    )
    _say(result)
    write_json(json_path, {**vars(result), "usage": usage.to_json()})
    return result


def _absolute(path: str) -> str:
    """A worker's working directory is another one."""
    return path if "://" in path else str(Path(path).resolve())


def _check_apart(output: str, data: Sequence[str]) -> None:
    """Labels written among the data would be read as data when the run is resumed, and a file
    of the data must not be written over."""
    from llmembed.texts.files import expand

    if output in [file.address for file in expand(data)]:
        raise ConfigError(f"--output {output} is one of the files to label: write it elsewhere")
    if "://" in output:
        return
    target = Path(output).resolve()
    if target in [Path(f.address).resolve() for f in expand(data) if "://" not in f.address]:
        raise ConfigError(f"--output {output} is one of the files to label: write it elsewhere")
    for source in data:
        if "://" not in source and set(source) & set("*?[") and target.match(source):
            raise ConfigError(f"--output {output} matches --data {source}: write it elsewhere")
    for source in data:
        if "://" not in source and Path(source).is_dir():
            folder = Path(source).resolve()
            if folder == target or folder in target.parents:
                raise ConfigError(
                    f"--output {output} lies inside --data {source}: write it elsewhere"
                )


def _thresholds(
    classifier: Classifier, folder: Path, unknown_below: float | Literal["chosen"] | None
) -> dict[str, float]:
    """Task -> the score below which the answer is ``unknown``."""
    from llmembed.pipelines.keeping import read_thresholds

    if unknown_below is None:
        return {}
    if unknown_below == "chosen":
        return read_thresholds(folder)
    single = [task.name for task in classifier.tasks if task.kind == "single"]
    if not single:
        raise ConfigError("--unknown-below: only a task with exactly one class a text has it")
    return dict.fromkeys(single, unknown_below)


def _check_columns(classifier: Classifier, keep: Sequence[str], scores: bool) -> None:
    from llmembed.pipelines.labelling import answer_columns

    tasks = classifier.tasks
    ours = {c for t in tasks for c in answer_columns(t, alone=len(tasks) == 1, scores=scores)}
    for name in keep:
        if name in ours:
            raise ConfigError(f"--keep {name}: the answers have a column of that name")


def _claim(parts: Parts, run: dict[str, Any]) -> None:
    """Note whose labels ``parts`` holds; raise if they are another run's."""
    earlier = parts.run()
    if earlier is None:
        if parts.names() or parts.others():
            raise ConfigError(
                f"{parts.address} is not empty and holds no run of ours: choose another --output"
            )
    elif parts.names():
        changed = [key.replace("_", " ") for key in run if earlier.get(key) != run[key]]
        if changed:
            raise ConfigError(
                f"{parts.address} holds the labels of another run (not the same "
                f"{', '.join(changed)}): choose another --output, or remove it"
            )
    parts.claim(run)


def _clear(folder: str) -> None:
    """Remove the bad rows that an earlier run set aside: this run starts anew."""
    import pyarrow.fs as pafs

    from llmembed.texts.files import filesystem_of

    filesystem, path = filesystem_of(folder)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)


def _digest(folder: Path) -> str:
    """Of a classifier's files, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _identity(data: Sequence[str]) -> list[list[Any]]:
    """Address, size in bytes and time of every file, so that changed data is noticed."""
    from llmembed.texts.files import expand, filesystem_of

    found: list[list[Any]] = []
    for file in expand(data):
        filesystem, path = filesystem_of(file.address)
        info = filesystem.get_file_info(path)
        found.append([file.address, info.size, info.mtime_ns])
    return found


def _check_seen(parts: Parts, name: str) -> None:
    if "://" not in parts.address and not parts.has(name):
        raise ConfigError(
            f"a worker's labels can't be seen from here in {parts.address}: "
            "choose an --output that all machines share, such as s3://BUCKET/labels.parquet"
        )


def _count_lines(folder: str) -> int:
    """Of the quarantine files in ``folder``."""
    import pyarrow.fs as pafs

    from llmembed.texts.files import filesystem_of

    filesystem, path = filesystem_of(folder)
    count = 0
    for entry in filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if entry.base_name.endswith(".jsonl"):
            with filesystem.open_input_stream(entry.path) as stream:
                while piece := stream.read(1 << 20):
                    count += piece.count(b"\n")
    return count


def _check_rows(rows: int, bad: int, allowed: float, data: Sequence[str], quarantine: str) -> None:
    if bad > allowed * (rows + bad):
        raise DataError(
            f"{bad:,} of {rows + bad:,} rows can't be used, more than {allowed:.0%}: they are in "
            f"{quarantine} with their reasons; the labels of the others are kept, and the same "
            "command with a higher --max-bad-fraction writes them out"
        )
    if not rows:
        raise DataError(f"{' '.join(data)}: no rows")


def _say(result: Predicted) -> None:
    out = console()
    out.print(f"labelled {result.rows:,} texts in {result.seconds:.1f} s -> {result.output}")
    if result.reused_rows:
        out.print(f"{result.reused_rows:,} of them were labelled by an earlier run")
    if result.bad_rows:
        out.print(
            f"{result.bad_rows:,} bad rows set aside in {result.quarantine}, with their reasons"
        )
