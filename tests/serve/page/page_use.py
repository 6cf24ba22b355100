"""What a person does with the page, for several tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TEXT = "the wheat harvest fell in week 7"
Open = Callable[..., Any]


def classify(page: Any, text: str, model: str = "news") -> None:
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Classify").click()
    page.locator("#result").wait_for()
