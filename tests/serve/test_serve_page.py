"""The page in a real Chromium: what a person does, and what the page asks the server for."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_server import save_newsroom, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEY = "a-key-for-tests"
TEXT = "the wheat harvest fell in week 7"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [
        save_newsroom(folder / "news"),
        save_newsroom(folder / "both", moods=True),
        save_newsroom(folder / "several", multi=True),
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def server(models: list[Path], files: Path) -> Iterator[str]:
    with serving(models, files, **{"limits.texts": 8, "limits.tokens_per_text": 500}) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install it to test the page")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture()
def opened(browser: Any, server: str) -> Iterator[Open]:
    """Opens the page; fails the test on anything asked of another address, on an error of the
    page's own and on anything the content security policy refused."""
    contexts, wrong = [], []

    def open_page(address: str = server, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: wrong.append(said.text) if "Content Security" in said.text else None,
        )

        def asked(request: Any) -> None:
            if not request.url.startswith((address, f"blob:{address}")):
                wrong.append(request.url)

        page.on("request", asked)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def classify(page: Any, text: str, model: str = "news") -> None:
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Classify").click()
    page.locator("#result").wait_for()


def test_the_page_allows_nothing_inline_and_nothing_from_elsewhere(server: str) -> None:
    with urllib.request.urlopen(server) as response:
        policy = response.headers["content-security-policy"]
        html = response.read().decode()
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script(?![^>]*src=)|\sstyle=|\son\w+=|https?:", html)
    for name in ("../server.py", "..%2Fserver.py", "nothing.js"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{server}/page/{name}")


def test_a_text_is_classified_explained_and_its_cost_told(opened: Open) -> None:
    page = opened()
    classify(page, TEXT)
    assert page.locator(".first strong").inner_text() == "grain"
    rows = page.get_by_role("list", name="Classes of topic").locator("li")
    names = [row.split("\n")[0] for row in rows.all_inner_texts()]
    assert sorted(names) == ["grain", "money", "ships"]
    widths = [row.locator(".fill").bounding_box()["width"] for row in rows.all()]
    assert widths == sorted(widths, reverse=True)
    page.locator("#words").wait_for()
    most = page.locator("#words-list .name").all_inner_texts()
    assert set(most[:2]) <= {"wheat", "harvest"}
    assert "Leave-one-out" in page.locator("#words-note").inner_text()
    figures = page.locator("#figures").inner_text()
    assert re.search(r"Time\s+[\d.]+ ms", figures)
    assert re.search(r"Energy\s+[\d.]+ m?J, (estimated|measured)", figures)
    assert page.get_by_role("status").filter(has_text="grain,").count() == 1
    page.locator("#words-label").select_option(label="money")
    page.locator("#words-text .against").first.wait_for()


def test_several_tasks_and_several_classes(opened: Open) -> None:
    page = opened()
    classify(page, TEXT, "both")
    assert page.locator(".task h3").all_inner_texts() == ["topic", "mood"]
    assert page.locator(".first strong").all_inner_texts() == ["grain", "bad"]
    classify(page, "interest rates and corn exports", "several")
    page.get_by_text("Several classes may apply").wait_for()
    assert page.locator(".first").count() == 0


def test_below_the_threshold_the_answer_is_unknown(opened: Open) -> None:
    page = opened()
    page.get_by_label("Answer “unknown” below 60.0 %").check()
    classify(page, "nothing of that kind")
    assert page.locator(".first strong").inner_text() == "unknown"
    classify(page, TEXT)
    assert page.locator(".first strong").inner_text() == "grain"
    page.get_by_label("Model", exact=True).select_option("several")
    assert not page.locator("#unknown-label").is_visible()


def test_texts_are_shown_as_texts(opened: Open) -> None:
    page = opened()
    classify(page, "<img src=x onerror=alert(1)> wheat \U0001f33e harvest")
    page.locator("#words").wait_for()
    shown = page.locator("#words-text").inner_text()
    assert shown == "<img src=x onerror=alert(1)> wheat \U0001f33e harvest"
    assert page.locator("main img").count() == 0


def test_a_refusal_is_said_where_it_belongs(opened: Open) -> None:
    page = opened()
    page.get_by_role("button", name="Classify").click()
    assert page.locator("#text-error").inner_text() == "There is no text yet."
    page.get_by_label("Text", exact=True).fill("wheat " * 2000)
    page.get_by_role("button", name="Classify").click()
    page.get_by_role("alert").filter(has_text="The text has").wait_for()
    assert "the limit is 500" in page.locator("#text-error").inner_text()


def test_the_keyboard_alone_is_enough(opened: Open) -> None:
    page = opened()
    page.locator("#ready").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.type(TEXT)
    page.keyboard.press("Control+Enter")
    page.locator("#words").wait_for()
    page.locator("#correct summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#correct-form").is_visible()
    without_name = page.evaluate(
        """() => [...document.querySelectorAll("input, select, textarea")]
        .filter((field) => !field.labels.length).map((field) => field.id)"""
    )
    assert without_name == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_screen_needs_no_scrolling_sideways(opened: Open, scheme: str) -> None:
    page = opened(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    classify(page, TEXT + " " + "x" * 300, "both")
    page.locator("#words").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", paper)[:3])) > 380
    assert light == (scheme == "light")


def labelled(page: Any) -> list[list[str]]:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the labels").click()
    content = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    return list(csv.reader(io.StringIO(content, newline="")))


def upload(page: Any, content: str, name: str = "news.csv") -> None:
    page.locator("#ready").wait_for()
    page.get_by_label("File", exact=True).set_input_files(
        files=[{"name": name, "mimeType": "text/csv", "buffer": content.encode()}]
    )


def test_a_csv_is_labelled_row_by_row(opened: Open) -> None:
    page = opened()
    rows = [[str(i), f'the wheat, "harvest"\nof week {i} \u00fc'] for i in range(50)]
    rows[7][1] = "  "
    rows[20][1] = "corn " * 2000
    rows[30] = ["30", "bond yields", "one too many"]
    out = io.StringIO()
    csv.writer(out).writerows([["label", "body"], *rows])
    upload(page, "\ufeff" + out.getvalue())
    page.get_by_text("50 rows, 2 columns").wait_for()
    assert page.get_by_label("Text column").input_value() == "1"
    sizes = []
    page.on(
        "request",
        lambda asked: (
            sizes.append(len(json.loads(asked.post_data)["inputs"]))
            if asked.url.endswith("/predict")
            else None
        ),
    )
    page.get_by_role("button", name="Label the rows").click()
    header, *found = labelled(page)
    assert header == ["label", "body", "predicted_label", "score", "error"]
    assert [row[:2] for row in found] == [row[:2] for row in rows]
    errors = {number: row[4] for number, row in enumerate(found) if row[4]}
    assert set(errors) == {7, 20, 30}
    assert "empty" in errors[7]
    assert "the limit is 500" in errors[20]
    assert errors[30].endswith("Beyond the header: one too many")
    assert {row[2] for number, row in enumerate(found) if number not in errors} == {"grain"}
    assert all(0 < float(row[3]) <= 1 for number, row in enumerate(found) if number not in errors)
    assert max(sizes) <= 8
    assert page.locator("#errors-title").inner_text() == "3 rows without a label"
    lines = page.locator("#errors-rows tr td:first-child").all_inner_texts()
    assert sorted(map(int, lines)) == [16, 41, 60]
    assert page.locator("#progress").evaluate("bar => bar.value") == 50


def test_a_run_can_be_cancelled_and_what_is_done_is_kept(opened: Open) -> None:
    page = opened()
    upload(page, "text\n" + "".join(f"the tanker lost in week {i}\n" for i in range(20_000)))
    page.get_by_role("button", name="Label the rows").click()
    page.locator("#progress[value]:not([value='0'])").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text(re.compile(r"^Cancelled\. [\d,]+ of 20,000 rows are done\.$")).first.wait_for()
    _, *found = labelled(page)
    assert len(found) == 20_000
    done = [row for row in found if row[1]]
    assert 0 < len(done) < 20_000
    assert {row[3] for row in found if not row[1]} == {"Not done."}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "The file is empty."),
        ("text\n", "The file has a header and no rows."),
        ('text\n"open', "The quote that opens in line 2 is never closed."),
        ("a,a\n1,2\n", "Two columns are called “a”."),
    ],
)
def test_a_file_that_is_no_csv_is_refused(opened: Open, content: str, words: str) -> None:
    page = opened()
    upload(page, content)
    page.get_by_role("alert").filter(has_text=words).wait_for()
    assert page.get_by_role("button", name="Label the rows").is_disabled()


def test_csv_is_read_as_python_reads_it(opened: Open) -> None:
    page = opened()
    page.locator("#ready").wait_for()
    tricky = [
        'a,b\r\n1,"x ""y"" z"\r\n"m\r\nn",\r\n',
        "a;b\n1;2,3\n\n;\n",
        'a\tb\n"t\tt"\tu',
        'a,b\n"",""\n1,2',
        'a,b\n1,\n"q"',
    ]
    for text in tricky:
        found = page.evaluate(
            "text => import('/page/csv.js').then(({ parse }) => parse(text))", text
        )
        expected = list(csv.reader(io.StringIO(text, newline=""), delimiter=found["delimiter"]))
        assert [found["header"], *(row["values"] for row in found["rows"])] == [
            row for row in expected if row
        ]


def test_a_correction_is_stored(opened: Open, files: Path) -> None:
    page = opened()
    classify(page, "a barley text to correct", "both")
    page.locator("#correct summary").click()
    page.get_by_label("Right class of topic").fill("ships")
    page.get_by_role("button", name="Send the correction").click()
    page.get_by_text("Stored. Thank you.").wait_for()
    lines = [
        json.loads(line)
        for path in (files / "feedback" / "both").iterdir()
        for line in path.read_text().splitlines()
    ]
    kept = {row["task"]: row["label"] for row in lines}
    assert kept["topic"] == "ships"
    assert kept["mood"] in ("good", "bad")  # left as it was answered
    assert all(re.fullmatch(r"[0-9a-f]{32}", row["request_id"]) for row in lines)


def test_a_key_is_asked_for_and_kept_in_memory_only(
    opened: Open, models: list[Path], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMEMBED_API_KEY", KEY)
    with serving(models[:1], files, docs=False, feedback=False) as address:
        page = opened(address)
        field = page.get_by_label("Key")
        field.fill("not the key")
        page.get_by_role("button", name="Use the key").click()
        page.get_by_role("alert").filter(has_text="does not take this key").wait_for()
        field.fill(KEY)
        field.press("Enter")
        classify(page, TEXT)
        assert not page.locator("#key-form").is_visible()
        assert not page.locator("#docs").is_visible()
        assert not page.locator("#correct").is_visible()
        kept = page.evaluate(
            "() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        )
        assert KEY not in kept
        assert field.input_value() == ""
        page.reload()
        page.locator("#key-form").wait_for()
