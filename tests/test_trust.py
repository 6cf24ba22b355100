"""The page on trust names a test for each sentence: these must be there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "trust.md").read_text(encoding="utf-8")


def test_the_tests_that_the_page_names_are_there():
    named = re.findall(r"`([\w/]+\.py)`", PAGE)
    assert len(named) > 30
    missing = [name for name in named if not (TESTS / name).is_file()]
    assert not missing, missing
