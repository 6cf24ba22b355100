"""Corrected labels over HTTP: what is kept, what is refused, files that rotate."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_server import post, save_newsroom, serving

from serve.model.feedback import FeedbackFiles


@pytest.fixture(scope="module")
def newsroom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def server(newsroom: Path, files: Path) -> Iterator[str]:
    models = [
        save_newsroom(newsroom / "news"),
        save_newsroom(newsroom / "both", moods=True),
        save_newsroom(newsroom / "several", multi=True),
    ]
    with serving(models, files) as address:
        yield address


def stored(files: Path, model: str) -> list[dict]:
    paths = sorted((files / "feedback" / model).glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]


def test_a_correction_is_kept_as_sent(server: str, files: Path) -> None:
    body = {"text": "corn,\n\u201cwheat\u201d \U0001f33e", "label": "grain", "request_id": "abc"}
    status, answer = post(f"{server}/feedback", body)
    assert (status, answer["stored"], answer["label"]) == (200, True, "grain")
    row = stored(files, "news")[-1]
    assert row.pop("time").endswith("+00:00")
    assert len(row.pop("feedback_id")) == 32
    assert row == {**body, "task": "topic", "model": "news"}


def test_several_classes_are_a_list(server: str, files: Path) -> None:
    for label, kept in ((["grain", "ships"], ["grain", "ships"]), ("money", ["money"]), ([], [])):
        status, _ = post(f"{server}/feedback", {"text": "t", "label": label, "model": "several"})
        assert (status, stored(files, "several")[-1]["label"]) == (200, kept)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": "t", "label": "corn"}, 422, "known are grain, ships, money; send new_label"),
        ({"text": "t", "label": ["grain"]}, 422, "takes one label"),
        ({"text": " ", "label": "grain"}, 422, "white space only"),
        ({"text": "", "label": "grain"}, 422, "text"),
        ({"text": "t", "label": "grain", "task": "mood"}, 422, "no task 'mood'"),
        ({"text": "t", "label": "grain", "model": "both"}, 422, "topic, mood"),
        ({"text": "t", "label": "grain", "model": "gone"}, 404, "known are news"),
        ({"text": "t", "label": " corn", "new_label": True}, 422, "white space"),
        ({"text": "t", "label": "a\nb", "new_label": True}, 422, "one line of printable"),
        ({"text": "t", "label": "a\x00b", "new_label": True}, 422, "one line of printable"),
        ({"text": "t", "label": "Unknown", "new_label": True}, 422, "an answer that abstains"),
        ({"text": "\ud800", "label": "grain"}, 422, "surrogate"),
        ({"text": "corn " * 7000, "label": "grain"}, 422, "about 8,750 tokens; the limit is 8,192"),
        ({"text": "t", "label": ["grain"] * 20, "model": "several"}, 422, "20 labels are too many"),
        ({"text": "t", "label": "x" * 1001, "new_label": True}, 422, "at most 1000 characters"),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(
    server: str, files: Path, body: dict, status: int, words: str
) -> None:
    before = len(stored(files, "news"))
    found, answer = post(f"{server}/feedback", body)
    assert found == status
    assert words in answer["error"]
    assert len(stored(files, "news")) == before


def test_a_new_class_needs_a_word_more(server: str, files: Path) -> None:
    body = {"text": "a ticket office", "label": "travel", "new_label": True}
    assert post(f"{server}/feedback", body)[0] == 200
    assert stored(files, "news")[-1]["new_label"] is True


def test_many_at_once_are_all_kept_whole(server: str, files: Path) -> None:
    texts = [f"text {number} " + "long " * 500 for number in range(60)]
    with ThreadPoolExecutor(12) as threads:
        sent = [
            threads.submit(
                post,
                f"{server}/feedback",
                {"text": text, "label": "good", "task": "mood", "model": "both"},
            )
            for text in texts
        ]
    assert {future.result()[0] for future in sent} == {200}
    assert sorted(row["text"] for row in stored(files, "both")) == sorted(texts)


def test_switched_off_there_is_no_such_page(newsroom: Path, tmp_path: Path, server: str) -> None:
    with serving([newsroom / "news"], tmp_path, feedback=False) as address:
        assert post(f"{address}/feedback", {"text": "t", "label": "grain"})[0] == 404
    assert not (tmp_path / "feedback").exists()


def test_files_rotate_and_no_line_is_cut(tmp_path: Path) -> None:
    files = FeedbackFiles(str(tmp_path), "replica#1", most_bytes=1024)
    for number in range(30):
        files.add("a/../b", {"text": f"{number} " + "x" * 100})
    assert [path.name for path in (tmp_path / "feedback").iterdir()] == ["a-..-b"]
    paths = sorted((tmp_path / "feedback" / "a-..-b").iterdir())
    assert len(paths) > 3
    assert all(path.stat().st_size <= 1024 for path in paths)
    assert len(stored(tmp_path, "a-..-b")) == 30


def test_two_replicas_write_files_of_their_own(tmp_path: Path) -> None:
    for _ in range(2):
        FeedbackFiles(str(tmp_path), "0", most_bytes=10_000).add("m", {"text": "t"})
    assert len(list((tmp_path / "feedback" / "m").iterdir())) == 2


def test_a_disk_that_refuses_is_said(newsroom: Path, tmp_path: Path, server: str) -> None:
    (tmp_path / "feedback").write_text("a file where the folder should be")
    with serving([newsroom / "news"], tmp_path) as address:
        status, answer = post(f"{address}/feedback", {"text": "secret", "label": "grain"})
    assert status == 503
    assert answer["error"] == "the feedback can't be stored now; send it again"


def test_a_request_sent_twice_bears_the_same_id_twice(server: str, files: Path) -> None:
    for _ in range(2):
        request = urllib.request.Request(
            f"{server}/feedback",
            json.dumps({"text": "twice", "label": "grain"}).encode(),
            {"content-type": "application/json", "x-request-id": "sent-7"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200
    rows = [row for row in stored(files, "news") if row["text"] == "twice"]
    assert [row["feedback_id"] for row in rows] == ["sent-7", "sent-7"]


def test_a_replica_keeps_only_so_much(newsroom: Path, tmp_path: Path, server: str) -> None:
    with serving([newsroom / "news"], tmp_path, feedback_total_bytes=2000) as address:
        sent = [
            post(f"{address}/feedback", {"text": "t" * 300, "label": "grain"}) for _ in range(8)
        ]
    codes = [status for status, _ in sent]
    kept = codes.count(200)
    assert 0 < kept < 8 and codes == [200] * kept + [507] * (8 - kept)
    assert "may keep 2,000" in sent[-1][1]["error"]
    assert sent[-1][1]["error_type"] == "full"
    assert len(stored(tmp_path, "news")) == kept


def test_unknown_is_said_where_a_task_has_a_threshold(server: str) -> None:
    text = "zebras"
    status, answer = post(f"{server}/predict", {"inputs": text, "model": "both", "unknown": True})
    assert status == 200
    assert answer["topic"][0]["label"] == "unknown"
    assert answer["topic"][0]["abstained"] is True
    assert all("abstained" not in row for row in (*answer["topic"][1:], *answer["mood"]))
    assert answer["mood"][0]["label"] != "unknown"
    body = {"inputs": text, "model": "both", "unknown": True, "task": "mood"}
    status, answer = post(f"{server}/predict", body)
    assert (status, "no threshold was chosen" in answer["error"]) == (422, True)
    # Refused before the model is asked: the text alone would be refused, too, for its length.
    body["inputs"] = "corn " * 40_000
    assert "no threshold was chosen" in post(f"{server}/predict", body)[1]["error"]
