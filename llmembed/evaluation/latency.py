"""Seconds from one text to its answer, as one user asking alone would wait."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence

import numpy as np

from llmembed.contract import Classifier
from llmembed.errors import LlmembedError
from llmembed.evaluation.result import Latency

WARM_UP = 3
TEXTS = 50
LEAST = 10
"""Fewer calls say nothing about a slowest one in a hundred."""


def measure_latency(
    classifier: Classifier,
    texts: Sequence[str],
    *,
    n_texts: int = TEXTS,
    budget_seconds: float = 30.0,
) -> tuple[Latency | None, str | None]:
    """Time ``predict([text])`` in this process for ``n_texts`` texts taken evenly from ``texts``,
    after a warm-up; and a note where the budget did not allow all of them, or any measurement.
    Answers that come from a cache (``answers_are_cached``) would show the cache's speed, and new
    ones would cost anew: such a classifier is not timed, and neither is one whose model
    (``memory_bytes``) this process has no room for.
    """
    if getattr(classifier, "answers_are_cached", False):
        return None, "latency not measured: the answers are cached"
    wanted = int(getattr(classifier, "memory_bytes", 0))
    if wanted and wanted > (room := _room()):
        return None, (
            f"latency not measured: the model takes {wanted / 2**30:.1f} GiB, "
            f"this process has {room / 2**30:.1f}"
        )
    try:
        return _measured(classifier, texts, n_texts, budget_seconds)
    except LlmembedError as error:
        return None, f"latency not measured: {error}"
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error):
            raise
        return None, "latency not measured: out of memory in this process"
    finally:
        if hasattr(classifier, "release"):
            classifier.release()
        _give_back()


def _room() -> int:
    """Bytes free where this process would answer."""
    import torch

    from llmembed.heads.memory import free_bytes

    return free_bytes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _give_back() -> None:
    """What the model held on a GPU, for whoever trains next."""
    if "torch" not in sys.modules:
        return
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _measured(
    classifier: Classifier, texts: Sequence[str], n_texts: int, budget_seconds: float
) -> tuple[Latency | None, str | None]:
    step = max(1, len(texts) // n_texts)
    chosen = list(texts[::step][:n_texts])
    started = time.perf_counter()
    for text in chosen[:WARM_UP]:
        classifier.predict([text])
        if time.perf_counter() - started > budget_seconds:
            return None, f"latency not measured: warming up took over {budget_seconds:g} s"
    took: list[float] = []
    started = time.perf_counter()
    for text in chosen:
        before = time.perf_counter()
        if before - started > budget_seconds:
            break
        classifier.predict([text])
        took.append(time.perf_counter() - before)
    if len(took) < min(LEAST, len(chosen)) or not took:
        return None, f"latency not measured: {len(took)} texts took {budget_seconds:g} s"
    p50, p99 = np.quantile(took, [0.5, 0.99])
    note = None
    if len(took) < len(chosen):
        note = f"latency over {len(took)} of {len(chosen)} texts within {budget_seconds:g} s"
    return Latency(p50_seconds=float(p50), p99_seconds=float(p99), texts=len(took)), note
