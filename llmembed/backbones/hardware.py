"""What the machine computes well."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from llmembed.backbones.spec import Dtype
from llmembed.errors import ModelError

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""``bf16`` is arm's name for it."""
EMULATE = "LLMEMBED_EMULATE_BF16"
"""Set to 1, a device without bfloat16 may compute in it all the same."""


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """The processor's flags as Linux lists them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def best_dtype(device: str = "auto") -> Dtype:
    """bfloat16 where ``device`` multiplies in it, else float32.

    ``auto``: the GPU, or without one the CPU, of this process. Where the work is done on other
    machines, ask there and give ``resolve`` the answer.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(device).type == "cpu":
        return "bfloat16" if cpu_flags() & BFLOAT16_FLAGS else "float32"
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def check_dtype(dtype: Dtype, best: Dtype, *, what: str, emulate: bool | None = None) -> None:
    """Raise ``ModelError`` when ``what`` is to be computed in bfloat16 on a device whose
    ``best_dtype`` it is not. ``emulate``: let it, many times slower; None asks ``EMULATE``."""
    if emulate is None:
        emulate = os.environ.get(EMULATE, "") not in ("", "0")
    if dtype == "bfloat16" and best != "bfloat16" and not emulate:
        raise ModelError(
            f"this machine does not compute in bfloat16, in which {what} is read: set dtype to "
            f"float32 for the whole run, or {EMULATE}=1 to have it emulated, which is slow"
        )
