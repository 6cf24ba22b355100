"""Files of texts on the page, in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_use import Open


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
