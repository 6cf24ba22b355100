"""What ``Runtime.train`` is told of a model too large, or too slow, for one worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bits = Literal[4, 8]
"""In which the frozen weights of a base may be read."""


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How the training of one model is shared out over workers, each with a device of its own.

    ``parameters``: of the model, ``trained`` of them (None: all), for what ``auto`` works out from
    the devices' memory. ``frozen_bits``: what each of the others takes; fewer than 16 are
    quantised, which ZeRO 3 can't share out.
    ``workers``: how many. ``zero``: DeepSpeed's ZeRO stage 0 to 3, or ``off`` for plain data
    parallelism without DeepSpeed. ``offload``: the optimiser's state (and with stage 3 the
    weights) wait in the machines' memory. ``bf16``: weights and gradients are kept in bfloat16
    under DeepSpeed. ``batch``: rows of one optimiser step; the workers share it evenly.
    ``checkpointed``: activations are computed again in the backward pass. ``run`` names the work:
    what an earlier process began under this name and ZeRO stage, on however many workers, goes on
    from its last checkpoint.
    """

    parameters: int
    batch: int
    trained: int | None = None
    frozen_bits: float = 16.0
    workers: int | Literal["auto"] = "auto"
    zero: int | Literal["auto", "off"] = "auto"
    offload: bool | Literal["auto"] = "auto"
    bf16: bool = True
    checkpointed: bool = False
    run: str | None = None
