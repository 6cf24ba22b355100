"""Frozen weights read in 4 or 8 bit by bitsandbytes, with adapters trained over them or not.

4 bit is QLoRA's (Dettmers et al. 2023): NormalFloat in blocks of 64, the blocks' scales quantised
once more. 8 bit is LLM.int8() (Dettmers et al. 2022).
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llmembed.errors import UnsupportedError
from llmembed.sharding import Bits as Bits

if TYPE_CHECKING:
    import torch

BLOCK = 64
"""Weights that share a scale in 4 bit."""
BITS_HELD: dict[Bits, float] = {4: 4.13, 8: 8.01}
"""What a weight takes, with its share of the scales."""


def check_installed(bits: Bits) -> None:
    """Raise ``UnsupportedError`` where bitsandbytes is missing."""
    if find_spec("bitsandbytes") is None:
        raise UnsupportedError(
            f"quantise: {bits} needs the package bitsandbytes, which is not installed: run "
            "`pip install 'llmembed[quantise]'`"
        )


def loading(bits: Bits, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What ``from_pretrained`` is told to read a model's linear layers in ``bits``, all but the one
    that says words, and compute in ``dtype``. Raises ``UnsupportedError``."""
    check_installed(bits)
    # Says for every layer that int8 products take float16, and that faster kernels may be had.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    if bits == 8:
        config = make(load_in_8bit=True)
    else:
        config = make(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def settle(model: Any, name: str) -> Any:
    """``model`` as it was just loaded, kept from what bitsandbytes 0.50 does wrong on CPUs. Raises
    ``UnsupportedError``.

    It reads blocks row by row, so rows that hold no whole number of them come out as other
    weights; and the first answer would repack all weights with their scales rounded to bfloat16,
    with which training would then go on.
    """
    for path, module in model.named_modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False
        if module.weight.device.type == "cpu" and module.in_features % BLOCK:
            raise UnsupportedError(
                f"{name} can't be read in 4 bit on a CPU: {path} has {module.in_features} inputs, "
                f"not a multiple of {BLOCK}; use quantise: 8, or a GPU"
            )
    return model
