"""What the machine computes well."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from llmembed.backbones.spec import Dtype


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


def best_dtype() -> Dtype:
    """bfloat16 where the GPU, or without one the CPU, multiplies in it; else float32."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # bf16 is arm's name for the same.
    return "bfloat16" if cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"
