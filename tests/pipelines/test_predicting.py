"""``predict`` on real files, through a real Ray, killed and interrupted in the middle."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from llmembed.contract import Examples, Silent, Task
from llmembed.errors import ConfigError, DataError
from llmembed.methods.lexical import Lexical
from llmembed.pipelines import predict
from llmembed.pipelines.predicting import CHUNK_ROWS

TOPICS = {
    "grain": "wheat corn harvest tonnes crop",
    "money": "bank rates dollar yen bond",
    "oil": "barrel crude opec supply drilling",
}
BIG = 200_000
"""Rows: seconds of work, so that a kill comes in the middle."""
TOPIC = Task(name="topic", classes=tuple(TOPICS))
TONES = Task(name="tones", classes=("fell", "rose"), kind="multi")


def text_of(row: int) -> str:
    """Of the topic ``row % 3``; it rose where ``row`` is even, fell where it divides by three."""
    words = list(TOPICS.values())[row % 3].split()
    moves = ("rose " if row % 2 == 0 else "") + ("fell " if row % 3 == 0 else "")
    return f"{moves}the {words[row % 5]} and {words[row % 4]} of the {words[row % 2]}"


def topic_of(row: int) -> str:
    return list(TOPICS)[row % 3]


def save_classifier(folder: Path, *tasks: Task) -> Path:
    rows = range(120)
    labels = {
        "topic": np.array([row % 3 for row in rows]),
        "tones": np.array([[row % 3 == 0, row % 2 == 0] for row in rows]),
    }
    examples = Examples(
        texts=[text_of(row) for row in rows], labels={t.name: labels[t.name] for t in tasks}
    )
    from llmembed.cluster import LocalRuntime

    runtime = LocalRuntime(folder)
    Lexical(inverse_penalties=[100.0]).fit(tasks, examples, examples, runtime, Silent()).save(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved classifier of topics."""
    return str(save_classifier(tmp_path_factory.mktemp("topic"), TOPIC))


def write_csv(path: Path, rows: range) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body"])
        writer.writerows([row, text_of(row)] for row in rows)
    return path


def labelled(folder: Path) -> list[dict[str, Any]]:
    """All rows of an output folder, in the order of its parts."""
    tables = [pq.read_table(part) for part in sorted(folder.glob("part-*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


def test_files_of_all_kinds_are_labelled_in_their_order(
    local_ray: None, model: str, tmp_path: Path
) -> None:
    write_csv(tmp_path / "a.csv", range(2500))
    lines = [json.dumps({"id": row, "body": text_of(row)}) for row in range(2500, 2600)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    (tmp_path / "c").mkdir()
    for part in (0, 1):
        rows = range(2600 + part * 50, 2650 + part * 50)
        table = pa.table({"id": list(rows), "body": [text_of(row) for row in rows]})
        pq.write_table(table.cast(pa.schema({"id": pa.string(), "body": pa.string()})),
                       tmp_path / "c" / f"{part}.parquet")  # fmt: skip
    output = tmp_path / "out" / "labels.jsonl"
    done = predict(
        model=model,
        data=[str(tmp_path / name) for name in ("a.csv", "b.jsonl", "c")],
        text_column="body",
        output=str(output),
        keep=["id"],
        json_path=str(tmp_path / "figures.json"),
    )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [int(row["id"]) for row in rows] == list(range(2700))
    assert [row["text"] for row in rows] == [text_of(row) for row in range(2700)]
    assert [row["label"] for row in rows] == [topic_of(row) for row in range(2700)]
    assert [row["index"] for row in rows[2495:2505]] == [*range(2495, 2500), *range(5)]
    assert rows[2650]["file"] == str(tmp_path / "c" / "1.parquet")
    assert (done.rows, done.reused_rows, done.bad_rows) == (2700, 0, 0)
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == 2700
    assert done.usage.seconds > 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["labels.jsonl"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ""])
def test_every_kind_of_output_says_the_same(model: str, tmp_path: Path, ending: str) -> None:
    data = write_csv(tmp_path / "a.csv", range(1500))
    output = tmp_path / f"labels{ending}"
    predict(
        model=model, data=[str(data)], text_column="body", output=str(output), local=True,
        scores=True,
    )  # fmt: skip
    table = {
        ".csv": pacsv.read_csv,
        ".parquet": pq.read_table,
        "": pq.read_table,
        ".jsonl": lambda path: pa.Table.from_pylist(
            [json.loads(line) for line in path.read_text().splitlines()]
        ),
    }[ending](output)
    assert table["label"].to_pylist() == [topic_of(row) for row in range(1500)]
    scores = np.stack([table[f"score:{name}"].to_numpy() for name in TOPICS], axis=1)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-4)
    assert np.allclose(scores.max(axis=1), table["score"].to_numpy(), atol=1e-6)


def test_several_tasks_and_several_labels(model: str, tmp_path: Path) -> None:
    both = save_classifier(tmp_path / "both", TOPIC, TONES)
    data = write_csv(tmp_path / "a.csv", range(24))
    output = tmp_path / "labels.csv"
    settings = {"data": [str(data)], "text_column": "body", "local": True}
    predict(model=str(both), output=str(output), **settings)
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["topic_label"] for row in rows] == [topic_of(row) for row in range(24)]
    expected = [
        ",".join(name for name, has in (("fell", i % 3 == 0), ("rose", i % 2 == 0)) if has)
        for i in range(24)
    ]
    assert [row["tones_label"] for row in rows] == expected
    tones = save_classifier(tmp_path / "tones", TONES)
    with pytest.raises(ConfigError, match="--unknown-below"):
        predict(model=str(tones), output=str(output), unknown_below=0.5, **settings)


def test_unknown_below_a_score(model: str, tmp_path: Path) -> None:
    data = tmp_path / "a.csv"
    data.write_text(f"body\n{text_of(0)}\nnothing known here\n")
    output = tmp_path / "labels.jsonl"
    predict(
        model=model, data=[str(data)], text_column="body", output=str(output), local=True,
        unknown_below=0.6,
    )  # fmt: skip
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["label"] for row in rows] == ["grain", "unknown"]
    assert rows[0]["score"] >= 0.6 > rows[1]["score"]


def test_bad_rows_are_set_aside_and_too_many_fail_the_run(
    local_ray: None, model: str, tmp_path: Path
) -> None:
    texts = [text_of(row).encode() for row in range(100)]
    texts[7], texts[50], texts[98] = b'""', b"\xff\xfe not utf-8", b"one,too many"
    (tmp_path / "a.csv").write_bytes(b"body\n" + b"\n".join(texts) + b"\n")
    (tmp_path / "b.jsonl").write_text('{"body": "crude"}\n{"body": 3}\n{broken\n')
    settings: dict[str, Any] = {
        "model": model,
        "data": [str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")],
        "text_column": "body",
        "output": str(tmp_path / "labels.parquet"),
    }
    with pytest.raises(DataError, match=r"5 of 103 rows can't be used, more than 1%"):
        predict(**settings)
    assert not (tmp_path / "labels.parquet").exists()
    done = predict(**settings, max_bad_fraction=0.05)
    assert (done.rows, done.reused_rows, done.bad_rows) == (98, 98, 5)
    table = pq.read_table(tmp_path / "labels.parquet")
    assert table["index"].to_pylist() == [i for i in range(100) if i not in (7, 50, 98)] + [0]
    reasons = [
        json.loads(line)["reason"]
        for path in sorted((tmp_path / "labels.parquet.quarantine").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert len(reasons) == 5 and any("UTF-8" in reason for reason in reasons)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "big.csv", range(BIG))


def start(model: str, data: Path, output: Path) -> subprocess.Popen[str]:
    """The command line, in a process group of its own as a terminal has it."""
    words = ["predict", "--model", model, "--data", str(data), "--text-column", "body"]
    return subprocess.Popen(
        [sys.executable, "-m", "llmembed", *words, "--output", str(output)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        cwd=data.parent,
    )


def wait_for_parts(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while len(list(output.glob("part-*"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no parts within two minutes"
        time.sleep(0.01)


def settled(output: Path) -> dict[str, int]:
    """The parts and when they were written, once orphaned workers have ended."""
    seen: dict[str, int] = {}
    while True:
        now = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
        if now == seen:
            return now
        seen = now
        time.sleep(1.5)


def check_whole(output: Path, rows: int) -> None:
    found = labelled(output)
    assert [row["index"] for row in found] == list(range(rows))
    assert all(row["label"] == topic_of(row["index"]) for row in found[::97])


def test_a_killed_run_goes_on_where_it_stopped(
    local_ray: None, model: str, tmp_path: Path, big: Path
) -> None:
    output = tmp_path / "labels"
    process = start(model, big, output)
    wait_for_parts(output, 5, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    process.communicate()
    before = settled(output)
    assert 5 <= len(before) < BIG // CHUNK_ROWS
    kept = sum(pq.read_metadata(output / name).num_rows for name in before)
    (output / ".part-00000-000117.parquet.99").write_bytes(b"half a part")
    settings: dict[str, Any] = {"model": model, "text_column": "body", "output": str(output)}
    done = predict(**settings, data=[str(big)])
    assert (done.rows, done.reused_rows) == (BIG, kept)
    check_whole(output, BIG)
    after = settled(output)
    assert {name: after[name] for name in before} == before
    assert not list(output.glob(".part-*"))
    assert pq.read_table(output).num_rows == BIG
    with big.open("a") as file:
        file.write(f"{BIG},crude\n")
    with pytest.raises(ConfigError, match=r"labels of another run \(not the same data\)"):
        predict(**settings, data=[str(big)])


def test_ctrl_c_stops_at_once_and_loses_nothing(model: str, tmp_path: Path, big: Path) -> None:
    output = tmp_path / "labels"
    process = start(model, big, output)
    wait_for_parts(output, 3, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    lines = [line for line in err.splitlines() if line.startswith("llmembed predict: ")]
    assert len(lines) == 1 and "stopped" in lines[0]
    assert "Traceback" not in err and "labelled" not in out
    assert 3 <= len(settled(output)) < BIG // CHUNK_ROWS


def test_mistakes_are_one_sentence(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    data = write_csv(folder / "a.csv", range(30))
    settings: dict[str, Any] = {"model": model, "local": True, "text_column": "body"}
    output = str(tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match=r"write \.csv, \.jsonl, \.parquet or a folder"):
        predict(**settings, data=[str(data)], output="labels.xlsx")
    with pytest.raises(ConfigError, match="lies inside --data"):
        predict(**settings, data=[str(folder)], output=str(folder / "labels.csv"))
    with pytest.raises(ConfigError, match=r"--unknown-below 1\.5"):
        predict(**settings, data=[str(data)], output=output, unknown_below=1.5)
    with pytest.raises(ConfigError, match="--keep label"):
        predict(**settings, data=[str(data)], output=output, keep=["label"])
    with pytest.raises(DataError, match="nowhere"):
        predict(**settings, data=[str(tmp_path / "nowhere.csv")], output=output)
    with pytest.raises(DataError, match="text"):
        predict(**{**settings, "text_column": "text"}, data=[str(data)], output=output)
    # A run that could label nothing does not stand in the way of the corrected one.
    assert predict(**settings, data=[str(data)], output=output).rows == 30
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not yours")
    with pytest.raises(ConfigError, match="holds no run of ours"):
        predict(**settings, data=[str(data)], output=str(tmp_path / "mine"))


@pytest.fixture
def bucket() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    from llmembed.texts.files import _remote

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        _remote.cache_clear()
        boto3.client("s3").create_bucket(Bucket="labels")
        yield "s3://labels"
    server.stop()
    _remote.cache_clear()


def test_labels_in_an_object_store(bucket: str, model: str, tmp_path: Path) -> None:
    import boto3

    data = write_csv(tmp_path / "a.csv", range(2100))
    settings: dict[str, Any] = {
        "model": model,
        "data": [str(data)],
        "text_column": "body",
        "local": True,
        "files": str(tmp_path),
    }
    done = predict(**settings, output=f"{bucket}/run/parts")
    assert done.rows == 2100
    client = boto3.client("s3")
    client.delete_object(Bucket="labels", Key="run/parts/part-00000-000001.parquet")
    again = predict(**settings, output=f"{bucket}/run/parts")
    assert (again.rows, again.reused_rows) == (2100, 1076)
    predict(**settings, output=f"{bucket}/run/labels.csv")
    keys = [found["Key"] for found in client.list_objects_v2(Bucket="labels")["Contents"]]
    files = [key for key in keys if not key.endswith("/") and "run/parts/" not in key]
    assert files == ["run/labels.csv"]
    body = client.get_object(Bucket="labels", Key="run/labels.csv")["Body"].read().decode()
    rows = list(csv.DictReader(body.splitlines()))
    assert [row["label"] for row in rows] == [topic_of(row) for row in range(2100)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(model: str, tmp_path: Path) -> None:
    """The driver's peak on 300 MB stays within 150 MB of its peak on 3 MB; more than 5,000 rows
    a second are labelled."""
    code = (
        "import sys, json, resource\n"
        "from llmembed.pipelines import predict\n"
        "done = predict(model=sys.argv[1], data=[sys.argv[2]], text_column='body',\n"
        "               output=sys.argv[2] + '.out.parquet')\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps([peak, done.rows, done.seconds]))\n"
    )
    figures = {}
    for name, rows in (("small", 12_000), ("large", 1_600_000)):
        path = tmp_path / f"{name}.csv"
        long = [" ".join(text_of(row + k) for k in range(5)) for row in range(60)]
        with path.open("w") as file:
            file.write("body\n")
            file.writelines(f"{long[row % 60]} n{row}\n" for row in range(rows))
        ran = subprocess.run(
            [sys.executable, "-c", code, model, str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        figures[name] = json.loads(ran.stdout.splitlines()[-1])
        assert figures[name][1] == rows
    assert (tmp_path / "large.csv").stat().st_size > 300e6
    assert figures["large"][0] - figures["small"][0] < 150, figures
    assert figures["large"][1] / figures["large"][2] > 5000, figures
