"""``predict``: label files of any size on Ray Data, in bounded memory, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from llmembed.contract import Classifier, Stage, Usage
from llmembed.errors import ConfigError, DataError, NoAnswerError
from llmembed.permissions import Allowed, loading
from llmembed.pipelines.console import check_writable, console, say_assumed, write_json
from llmembed.pipelines.predict.claim import check_apart, claim, clear, digest_of, identity_of
from llmembed.pipelines.predict.outcome import Predicted, say
from llmembed.pipelines.runtime import make_runtime, tracking_files

if TYPE_CHECKING:
    from llmembed.pipelines.predict.parts import Parts

CHUNK_ROWS = 1024
"""Rows that are labelled at once and lost at most by a kill, for each actor."""
FORMATS = (".csv", ".jsonl", ".parquet")


def predict(
    *,
    model: str,
    data: Sequence[str],
    text_column: str,
    output: str,
    delimiter: str | None = None,
    encoding: str | None = None,
    keep: Sequence[str] = (),
    scores: bool = False,
    unknown_below: float | Literal["chosen"] | None = None,
    max_bad_fraction: float = 0.01,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    token_prices: tuple[float, float] | None = None,
    tracking_uri: str | None = None,
    files: str | None = None,
    address: str | None = None,
    local: bool = False,
    json_path: str | None = None,
    allowed: Allowed | None = None,
) -> Predicted:
    """Label every text of ``data`` with ``model`` and write ``output``: a file, or a folder of
    parts, here or in an object store; columns of ``keep`` are handed on. ``delimiter`` and
    ``encoding``: of the files, where they don't tell (see ``texts.Form``). ``unknown_below``: a
    score, or ``chosen`` for the one by which validation promises the experiment's wanted precision.
    ``allowed``: what the classifier may do besides computing with its weights; what it then does is
    said before anything is labelled.

    A classifier that asks an endpoint does so from this process alone, chunk by chunk, and every
    answer is kept among the files as it comes: killed and started again, nothing kept is paid
    twice. ``budget_usd`` and ``budget_tokens`` limit what one start of the command pays, by
    ``token_prices``, USD for 1000 tokens of prompt and of answer.

    Raises:
        BudgetError: the budget is spent; the same command goes on where it stopped.
        ConfigError: ``output`` has no known ending, or holds the labels of another run.
        DataError: ``data`` can't be read, or more than ``max_bad_fraction`` of its rows are bad;
            the labels of the others are then kept for the next run.
        ModelError: ``model`` can't be found, or wants what was not allowed.
        NoAnswerError: some texts got no answer; ``output`` is not finished, what was answered is
            kept, and the same command asks only what is missing.
    """
    from llmembed.methods import load
    from llmembed.pipelines.generators import cache_of
    from llmembed.pipelines.models import find_classifier
    from llmembed.pipelines.predict.endpoint import asks_endpoint, settings_of_a_run
    from llmembed.pipelines.predict.labeller import Chunks, MakeLabeller
    from llmembed.pipelines.predict.parts import Parts
    from llmembed.pipelines.predict.writing import write_whole
    from llmembed.texts import Form, readers

    start = time.perf_counter()
    allowed = allowed or Allowed()
    suffix = PurePosixPath(output).suffix
    if suffix not in ("", *FORMATS):
        raise ConfigError(f"--output {output}: write {', '.join(FORMATS)} or a folder")
    check_writable(json_path)
    check_apart(output, data)
    for option, share in (
        ("--unknown-below", None if unknown_below == "chosen" else unknown_below),
        ("--max-bad-fraction", max_bad_fraction),
    ):
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"{option} {share}: expected a number between 0 and 1")
    with make_runtime(files=files, address=address, local=local) as runtime:
        place = tracking_files(runtime.files)
        folder = find_classifier(model, files=place, tracking_uri=tracking_uri)
        with loading(allowed) as granted:
            classifier = load(folder)
        for line in granted:
            console().print(f"the classifier {line}", markup=False, soft_wrap=True)
        of_a_run, proviso = settings_of_a_run(
            classifier,
            folder,
            cache=cache_of(runtime.files),
            budget_usd=budget_usd,
            budget_tokens=budget_tokens,
            token_prices=token_prices,
        )
        if proviso is not None:
            console().print(proviso, style="yellow", soft_wrap=True)
        below = _thresholds(classifier, folder, unknown_below)
        _check_columns(classifier, keep, scores, below)
        parts = Parts(address=output if not suffix else f"{output}.parts")
        quarantine = f"{_absolute(output).rstrip('/')}.quarantine"
        made = readers(
            list(data),
            text_column,
            CHUNK_ROWS,
            keep=keep,
            quarantine_folder=quarantine,
            form=Form(delimiter=delimiter, encoding=encoding),
        )
        say_assumed(console(), made)
        claim(
            parts,
            {
                "classifier": digest_of(folder),
                "data": identity_of(data),
                "text_column": text_column,
                "keep": list(keep),
                "scores": scores,
                "unknown_below": below,
                "chunk_rows": CHUNK_ROWS,
                **{k: v for k, v in (("delimiter", delimiter), ("encoding", encoding)) if v},
            },
        )
        done = frozenset(parts.names())
        if not done:
            clear(quarantine)
        reused = sum(parts.rows(name) for name in done)
        unread = sum(parts.empty(name, _label_columns(classifier)) for name in done)
        paying = asks_endpoint(classifier)
        if of_a_run and not paying and runtime.machines > 1:
            of_a_run = {}  # a cache of answers lies on one machine's disk
        make = MakeLabeller.of(
            folder,
            parts=parts,
            keep=tuple(keep),
            scores=scores,
            unknown_below=below,
            of_a_run=of_a_run,
            allowed=allowed,
        )
        labeller = make() if paying else None
        # Whatever asks an endpoint shares one budget, one limit of calls at once and one cache.
        where = make_runtime(files=files, local=True) if paying else runtime
        stages = [Stage(make=make if labeller is None else lambda: labeller, rows=1, model=True)]
        chunks = [Chunks(number=n, reader=reader, done=done) for n, reader in enumerate(made)]
        rows, missing, waiting, usage = 0, 0, 0, Usage()
        why, refused = "", [""][:0]
        for table in where.map_texts(chunks, stages, label="predict"):
            for record in table.to_pylist():
                refused += record["refused"]
                if record["unanswered"]:
                    missing, waiting = missing + record["unanswered"], waiting + record["rows"]
                    why = why or record["why"]
                else:
                    _check_seen(parts, record["part"])
                    rows, unread = rows + record["rows"], unread + record["unread"]
                usage += Usage.from_json(json.loads(record["usage"]))
        paid = labeller.classifier.generator.paid() if labeller else Usage()  # type: ignore[attr-defined]
    bad = _count_lines(quarantine)
    _check_rows(rows + waiting + reused, bad, max_bad_fraction, data, quarantine)
    parts.tidy()
    if suffix and not missing:
        write_whole(parts.tables(), output)
        parts.remove()
    result = Predicted(
        rows=rows + reused,
        reused_rows=reused,
        bad_rows=bad,
        unread_rows=unread,
        unanswered_rows=missing,
        open_rows=waiting,
        refused=tuple(refused),
        seconds=time.perf_counter() - start,
        usage=usage,
        paid=paid,
        paid_usd=of_a_run["prices"].cost(paid) if paying else 0.0,
        output=output,
        quarantine=quarantine,
    )
    say(result)
    told = {"usage": usage.to_json(), "paid": paid.to_json()}
    write_json(json_path, {**vars(result), **told})
    if missing:
        raise NoAnswerError(
            f"{missing:,} of {rows + waiting + reused:,} texts got no answer"
            f"{f' ({why})' if why else ''}, so {output} is not finished; what was answered is "
            f"kept, and the same command asks only for the {missing:,}"
        )
    return result


def _absolute(path: str) -> str:
    """A worker's working directory is another one."""
    return path if "://" in path else str(Path(path).resolve())


def _thresholds(
    classifier: Classifier, folder: Path, unknown_below: float | Literal["chosen"] | None
) -> dict[str, float]:
    """Task -> the score below which the answer is ``unknown``."""
    from llmembed.pipelines.sidecars import read_thresholds

    if unknown_below is None:
        return {}
    if unknown_below == "chosen":
        chosen, promises = read_thresholds(folder)
        for words in promises:
            console().print(words, soft_wrap=True, markup=False)
        return chosen
    single = [task.name for task in classifier.tasks if task.kind == "single"]
    if not single:
        raise ConfigError("--unknown-below: only a task with exactly one class a text has it")
    return dict.fromkeys(single, unknown_below)


def _label_columns(classifier: Classifier) -> list[str]:
    """The columns of the output that hold labels."""
    from llmembed.pipelines.predict.labeller import answer_columns

    tasks = classifier.tasks
    alone = len(tasks) == 1
    return [answer_columns(t, alone=alone, scores=False, abstains=False)[0] for t in tasks]


def _check_columns(
    classifier: Classifier, keep: Sequence[str], scores: bool, below: Mapping[str, float]
) -> None:
    from llmembed.pipelines.predict.labeller import answer_columns

    tasks = classifier.tasks
    alone = len(tasks) == 1
    ours = {
        column
        for task in tasks
        for column in answer_columns(
            task, alone=alone, scores=scores, abstains=below.get(task.name) is not None
        )
    }
    for name in keep:
        if name in ours:
            raise ConfigError(f"--keep {name}: the answers have a column of that name")


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
