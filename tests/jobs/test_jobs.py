"""Jobs as users submit them: a real cluster on the loopback, this repository as working directory.

The slow ones are those whose commands other tests run without a cluster.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import ROOT, Cluster, free_ports, running_head

from jobs import kept
from jobs.submit import check_size
from llmembed.errors import UserError

WORDS = {
    "grain": "wheat corn harvest tonnes crop",
    "money": "bank rates dollar yen bond",
    "oil": "barrel crude opec supply drilling",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_head(tmp_path_factory.mktemp("files")) as found:
        yield found


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 texts of three topics."""
    path = tmp_path_factory.mktemp("data") / "news.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body", "topic"])
        for row in range(60):
            topic = sorted(WORDS)[row % 3]
            words = WORDS[topic].split()
            text = f"{words[row % 5]} and {words[row % 4]} rose after {words[row % 2]} number {row}"
            writer.writerow([row, text, topic])
    return path


def labelled(table: Path) -> list[str]:
    return ["--data", str(table), "--text-column", "body", "--label-column", "topic"]


@pytest.mark.slow
def test_a_fit_job_embeds_fits_and_saves_and_a_predict_job_labels(
    cluster: Cluster, table: Path
) -> None:
    words = ["--method", "probe", "seeds=1", "runtime.actors=1"]
    words += ["--save", "saved/probe", "--json", "fit.json"]
    fit = cluster.ray_job("python", "-m", "jobs.fit", *labelled(table), *words)
    assert fit.returncode == 0, fit.stdout
    assert "60 embedded" in fit.stdout and "succeeded" in fit.stdout
    assert (cluster.files / "saved" / "probe" / "classifier.json").is_file()
    assert json.loads((cluster.files / "fit.json").read_text())
    assert list(cluster.files.rglob("part-*.parquet"))

    words = ["--model", str(cluster.files / "saved" / "probe"), "--keep", "id", "topic"]
    words += ["--data", str(table), "--text-column", "body", "--output", "labels.csv"]
    predict = cluster.submit("predict", *words)
    assert predict.returncode == 0, predict.stdout
    with (cluster.files / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == list(range(60))
    assert sum(row["label"] == row["topic"] for row in rows) >= 50


def test_a_mistake_ends_the_job_failed_with_one_sentence(cluster: Cluster, table: Path) -> None:
    ran = cluster.submit("fit", *labelled(table), "--method", "nonsense")
    assert ran.returncode == 2, ran.stdout
    assert "FAILED" in ran.stdout and "Traceback" not in ran.stdout
    said = [line for line in ran.stdout.splitlines() if line.startswith("llmembed fit: ")]
    assert len(said) == 1 and "nonsense" in said[0]


def test_an_unreachable_cluster_is_a_mistake() -> None:
    (port,) = free_ports(1)
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.submit", "--address", f"http://127.0.0.1:{port}", "report"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("jobs.submit: no job could be submitted to http://127.0.0.1:")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.variant
def test_embed_compare_and_report_jobs(cluster: Cluster, table: Path) -> None:
    files = ["--files", "others"]
    embed = cluster.ray_job("python", "-m", "jobs.embed", *labelled(table), *files)
    assert embed.returncode == 0 and "60 embedded" in embed.stdout, embed.stdout
    words = ["--methods", "lexical,probe", "seeds=1"]
    compare = cluster.ray_job("python", "-m", "jobs.compare", *labelled(table), *words, *files)
    assert compare.returncode == 0, compare.stdout
    assert "0 embedded, 60 reused" in compare.stdout
    assert (cluster.files / "others" / "mlflow.db").is_file()
    report = cluster.ray_job("python", "-m", "jobs.report", "--markdown", *files)
    assert report.returncode == 0, report.stdout
    assert "| method |" in report.stdout, report.stdout
    assert "probe" in report.stdout and "lexical" in report.stdout
    again = cluster.ray_job("python", "-m", "jobs.report", "nowhere.json")
    assert again.returncode != 0
    assert "there is no file nowhere.json" in again.stdout and "Traceback" not in again.stdout


@pytest.mark.slow
@pytest.mark.variant
def test_the_job_runs_the_code_of_its_working_directory(cluster: Cluster) -> None:
    code = (
        "import llmembed, ray; ray.init(log_to_driver=False); "
        "place = ray.remote(lambda: __import__('llmembed').__file__); "
        "print('DRIVER', llmembed.__file__); print('WORKER', ray.get(place.remote()))"
    )
    ran = cluster.ray_job("python", "-c", code)
    places = dict(
        line.split() for line in ran.stdout.splitlines() if line[:6] in ("DRIVER", "WORKER")
    )
    assert len(places) == 2, ran.stdout
    assert all("working_dir_files" in place for place in places.values()), places


def test_this_repository_is_small_enough_to_send() -> None:
    assert 0 < check_size(ROOT, most_mib=20) < 20


def test_a_large_working_directory_is_answered_by_what_to_leave_out(tmp_path: Path) -> None:
    for name in ("models", ".git", "ignored"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(bytes(3 << 20))
    (tmp_path / "code.py").write_text("print()")
    (tmp_path / ".gitignore").write_text("ignored/\n")
    with pytest.raises(UserError, match=r"send 3 MiB .* more than 2: .*models \(3 MiB\)$"):
        check_size(tmp_path, most_mib=2)
    (tmp_path / ".rayignore").write_text("models\n")
    assert check_size(tmp_path, most_mib=2) < 0.1
    with pytest.raises(UserError, match="there is no such folder"):
        check_size(tmp_path / "nowhere", most_mib=2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "a.csv", "--output", "b.csv"], ["--data", "a.csv", "--output", "/f/b.csv"]),
        (["--files", "mine", "--save=m"], ["--files", "/f/mine", "--save", "/f/mine/m"]),
        (["--output", "x", "--files", "s3://b/k"], ["--output", "s3://b/k/x", "--files", "s3://b/k"]),
        (["--json", "/tmp/x.json", "seeds=1"], ["--json", "/tmp/x.json", "seeds=1"]),
        (["--output"], ["--output"]),
    ],
)  # fmt: skip
def test_what_a_job_writes_outlives_its_working_directory(
    words: list[str], expected: list[str]
) -> None:
    assert kept(words, "/f") == expected
