"""Classifiers fitted once, and real HTTP servers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def served_models(tiny_spec: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> the folder of a saved classifier: ``fused``, ``lexical``, ``both`` (two tasks)."""
    from small_models import fit_small

    return fit_small(tiny_spec, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def http_server(served_models: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """``http_server("fused", "lexical", **settings)`` -> a running ``Served``; one asked for again
    in the same words is the same one. Keys may be dotted with ``__``: ``limits__texts=8``."""
    from small_models import Served

    running: dict[str, Served] = {}

    def serve(*names: str, fresh: bool = False, **settings: Any) -> Served:
        given = {key.replace("__", "."): value for key, value in settings.items()}
        key = repr((names, given, object() if fresh else None))
        if key not in running:
            folders = [str(served_models[name]) for name in names]
            running[key] = Served({"models": folders, "api_key_env": None, **given})
        return running[key]

    yield serve
    for served in running.values():
        served.stop()


@pytest.fixture(scope="session")
def everything(http_server: Callable[..., Any]) -> Any:
    """All three models at once, without limits of their own."""
    return http_server("fused", "lexical", "both")


@pytest.fixture(scope="session")
def expected(served_models: dict[str, Path]) -> Any:
    """What ``fused`` answers to ``http_asking.TEXTS`` without a server."""
    from http_asking import TEXTS

    from llmembed.methods import load

    return load(served_models["fused"]).predict(TEXTS)["topic"]
