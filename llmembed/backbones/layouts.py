"""Models laid out otherwise than most, as far as their configuration tells; see ``reading``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmembed.backbones.spec import EXTRACTOR_VERSION, Read
from llmembed.errors import UnsupportedError

# Read by hooks alone, as version 2 did, these gave other numbers than their own lists of states.
_MISREAD_BY_2 = {"convbert", "fnet", "xlnet"}
_MISREAD_BY_2_BELOW_THE_TOP = {"falcon_mamba", "mamba", "mamba2", "rwkv"}


def version_of(reads: Iterable[Read], config: Any) -> int:
    kind = config.model_type
    # DeBERTa's largest have a convolution after their first block.
    odd = kind == "deberta-v2" and bool(getattr(config, "conv_kernel_size", 0))
    below = any(read.depth > 1 for read in reads)
    misread = kind in _MISREAD_BY_2
    misread |= below and (odd or kind in _MISREAD_BY_2_BELOW_THE_TOP)
    return EXTRACTOR_VERSION + misread


def width_of(model: str, reads: Iterable[Read], config: Any) -> int:
    """Of every read. OPT's smallest models are narrower at their end than between their blocks."""
    width = int(config.hidden_size)
    at_end = int(getattr(config, "word_embed_proj_dim", None) or width)
    widths = {at_end if read.depth == 1 else width for read in reads}
    if len(widths) > 1:
        raise UnsupportedError(
            f"{model} is {at_end} wide at depth 1 and {width} at others, so they can't be read "
            "together: name reads of depth 1, or others, not both"
        )
    return widths.pop()


def check_attention(model: str, config: Any, max_tokens: int) -> None:
    """BigBird's sparse attention reads a text otherwise once a shorter batch has come before."""
    if getattr(config, "attention_type", None) != "block_sparse":
        return
    most = (5 + 2 * int(config.num_random_blocks)) * int(config.block_size)
    if max_tokens > most:
        raise UnsupportedError(
            f"{model} reads texts of more than {most} tokens by sparse attention, so that their "
            f"vectors depend on what was read before: set max_tokens to {most} or less, or "
            "attention_type to original_full in its config.json"
        )
