"""Tiny models that every test of this room may use, built once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import LAYERS, WIDTH, make_model, save_tokenizer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny(kind)`` -> the folder of a saved tiny ``bert``, ``roberta`` or ``llama``."""
    made: dict[tuple[str, int, int], Path] = {}

    def make(kind: str, layers: int = LAYERS, width: int = WIDTH) -> Path:
        key = kind, layers, width
        if key not in made:
            folder = tmp_path_factory.mktemp("models") / f"tiny-{kind}"
            make_model(kind, layers, width).save_pretrained(folder)  # type: ignore[attr-defined]
            save_tokenizer(folder, kind)
            made[key] = folder
        return made[key]

    return make
