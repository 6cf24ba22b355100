"""How fast a model is trained: tokens a second, and the share of the device's peak that is."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass, field

from llmembed.errors import ConfigError

PEAK_VARIABLE = "LLMEMBED_PEAK_TFLOPS"
PEAK_TFLOPS = {
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "A10G": 70.0,
    "L40S": 362.0,
    "L4": 121.0,
    "V100": 125.0,
}
"""Dense matrix products in bfloat16 (V100: float16) by the makers' data sheets."""


def peak_flops() -> float | None:
    """Of this process's device, per second; None where it is not known: ``LLMEMBED_PEAK_TFLOPS``
    says it then."""
    told = os.environ.get(PEAK_VARIABLE, "").strip()
    if told:
        try:
            return float(told) * 1e12
        except ValueError:
            raise ConfigError(f"{PEAK_VARIABLE} is {told!r}: expected a number") from None
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name(0)
    return next((1e12 * peak for key, peak in PEAK_TFLOPS.items() if key in name), None)


def peak_memory_bytes() -> int:
    """The most this process held so far: of its GPU, else of the machine's memory."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def training_flops(parameters: int, trained: int, tokens: int) -> float:
    """For each token two operations a parameter forward and two backward, and two more for each
    that is trained (Kaplan et al. 2020: six in full fine-tuning). Attention's own products and what
    is computed again are not counted."""
    return (4.0 * parameters + 2.0 * trained) * tokens


@dataclass
class Speed:
    """Tokens of all workers between two ``mark``s."""

    parameters: int
    trained: int
    workers: int
    tokens: int = 0
    positions: int = 0
    _marked: tuple[float, int] = field(default_factory=lambda: (time.perf_counter(), 0))

    def add(self, tokens: int, positions: int) -> None:
        """``tokens`` of text and ``positions`` with padding, of one optimiser step."""
        self.tokens += tokens
        self.positions += positions

    def mark(self) -> dict[str, float]:
        """``tokens_per_second``, ``model_flop_utilisation`` (where the device's peak is known),
        since the last mark, and ``padding`` so far."""
        now = time.perf_counter()
        seconds, tokens = now - self._marked[0], self.tokens - self._marked[1]
        self._marked = (now, self.tokens)
        if seconds <= 0 or not tokens:
            return {}
        found = {
            "tokens_per_second": tokens / seconds,
            "padding": 1 - self.tokens / max(1, self.positions),
            "peak_memory_bytes": float(peak_memory_bytes()),
        }
        peak = peak_flops()
        if peak is not None:
            flops = training_flops(self.parameters, self.trained, tokens) / seconds
            found["model_flop_utilisation"] = flops / (peak * self.workers)
        return found
