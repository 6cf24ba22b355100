"""The page of a running server in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_use import Open
from small_server import save_newsroom, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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
        page.set_default_timeout(20_000)
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
