"""A classifier fitted once. The server that speaks the OpenAI protocol and the tiny Llama lie with
the generators' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "generation"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved classifier of topics."""
    from topic_files import TOPIC, save_classifier

    return str(save_classifier(tmp_path_factory.mktemp("topic"), TOPIC))
