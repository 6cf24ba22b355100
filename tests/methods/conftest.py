"""A view of the tiny BERT and a runtime in this process. The server that speaks the OpenAI protocol
lies with the generators' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "generation"))


@pytest.fixture
def view(tiny_spec: Any) -> Any:
    from llmembed.backbones import View, parse_reads

    return View(backbone=tiny_spec, reads=parse_reads("mean:1"))


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Any]:
    from llmembed.cluster import LocalRuntime

    with LocalRuntime(tmp_path / "files") as runtime:
        yield runtime
