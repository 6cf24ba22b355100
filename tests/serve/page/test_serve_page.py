"""The page in a real Chromium: what a person does, and what the page asks the server for."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
from page_use import TEXT, Open, classify
from small_server import serving

KEY = "a-key-for-tests"


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
