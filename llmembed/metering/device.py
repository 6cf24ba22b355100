"""What a device meter is, and which devices this process uses."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llmembed.errors import ConfigError


class DeviceMeter(Protocol):
    """Joules that devices took between two moments.

    A meter knows nothing of windows: ``read`` returns whatever it needs of a moment, ``joules``
    compares two such readings. A device it can't answer for is left out, and the next meter asked.
    """

    @property
    def measured(self) -> bool:
        """Whether the figures come from the device's own counter."""
        ...

    @property
    def seconds_between_reads(self) -> float:
        """The longest two readings may lie apart without losing energy; infinity as a rule."""
        ...

    def read(self) -> Any: ...

    def joules(self, start: Any, end: Any) -> Mapping[str, float]:
        """Device (``gpu:0``, ``cpu``) -> joules from ``start`` to ``end``."""
        ...


NO_LIMIT = math.inf


@dataclass(frozen=True, kw_only=True)
class GpuInUse:
    """A GPU this process has memory on: CUDA's ordinal here, and its UUID (``GPU-…``)."""

    ordinal: int
    uuid: str

    @property
    def device(self) -> str:
        """Its name in ``Usage``."""
        return f"gpu:{self.ordinal}"


def gpus_in_use() -> list[GpuInUse]:
    """The GPUs this process has computed on so far; torch is asked, never loaded.

    An idle GPU is charged to nobody: a process that sees eight of them and works on its CPU
    takes no GPU energy.
    """
    torch: Any = sys.modules.get("torch")
    # A torch half imported by another thread has no `cuda` yet.
    cuda: Any = getattr(torch, "cuda", None)
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return []
    used = []
    for ordinal in range(cuda.device_count()):
        if cuda.max_memory_reserved(ordinal) > 0:
            uuid = str(cuda.get_device_properties(ordinal).uuid)
            used.append(GpuInUse(ordinal=ordinal, uuid=uuid if "-" in uuid[:4] else f"GPU-{uuid}"))
    return used


def declared_watts(variable: str) -> float | None:
    """The power the user declared in the environment, in watts; None where it is not set.

    Raises:
        ConfigError: what is set is no positive number.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    try:
        watts = float(text)
    except ValueError:
        watts = math.nan
    if not (math.isfinite(watts) and watts > 0):
        raise ConfigError(f"{variable} is {text!r}; it must be a positive number of watts")
    return watts
