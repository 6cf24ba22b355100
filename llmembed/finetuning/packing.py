"""Rows one behind another instead of one below another: no padding, and no row sees its neighbour.

transformers keeps flattened rows apart by a mask of all positions against all, which costs more
than the padding it saves. Here attention is done row by row, without any mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from llmembed.errors import UnsupportedError
from llmembed.finetuning.rows import NO_LABEL, Rows

ATTENTION = "llmembed_rows_apart"


class Bounds(list[int]):
    """Where rows begin, and where the last ends. ``heeded``: by how many layers so far."""

    heeded: int = 0


def flat_batch(rows: Rows, numbers: Sequence[int]) -> dict[str, Tensor]:
    """``input_ids``, ``attention_mask`` (ones), ``position_ids`` and each ``labels/NAME`` int64
    (1, all tokens), ``row_bounds`` int64 (B + 1,). Labels are one for each token."""
    lengths = torch.tensor([0, *(len(rows.ids[n]) for n in numbers)])
    ids = torch.tensor([[token for n in numbers for token in rows.ids[n]]])
    found = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.cat([torch.arange(int(size)) for size in lengths[1:]])[None],
        "row_bounds": lengths.cumsum(0),
    }
    for name, labels in rows.labels.items():
        own = [torch.as_tensor(labels[n]).clone() for n in numbers]
        for row in own:
            row[:1] = NO_LABEL  # not for the row before to say
        found[f"labels/{name}"] = torch.cat(own)[None]
    return found


def keep_rows_apart(model: Any, name: str) -> None:
    """Make ``model`` ready for flattened rows. Raises ``UnsupportedError`` where it has layers
    other than plain attention, in which rows would mix."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) is not None
    plain = getattr(model, "_supports_attention_backend", False)
    if not plain or model._is_stateful or windowed or kinds != {"full_attention"}:
        raise UnsupportedError(
            f"padding_free can't be used with {name}, a {config.model_type}, whose layers are not "
            "all plain attention: leave it out"
        )
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    interface: Any = AttentionInterface
    masks: Any = AttentionMaskInterface
    interface.register(ATTENTION, _rows_apart)
    masks.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(ATTENTION)


def check_heeded(bounds: Bounds, layers: int) -> None:
    """Raise ``UnsupportedError`` where layers did not hear of the rows' bounds."""
    if bounds.heeded < layers:
        raise UnsupportedError(
            f"padding_free can't be used with this model: {layers - bounds.heeded} of its {layers} "
            "layers do not keep rows apart; leave it out"
        )


def _rows_apart(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row_bounds: Bounds | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention (B, T, heads, width) of torch's kernels; with ``row_bounds`` B is 1 and each row
    sees itself alone."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    attend: Any = sdpa_attention_forward
    if row_bounds is None:
        found: tuple[Tensor, None] = attend(module, query, key, value, attention_mask, **settings)
        return found
    row_bounds.heeded += 1
    settings["is_causal"] = True
    each = [
        attend(
            module,
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            None,
            **settings,
        )[0]
        for start, end in pairwise(row_bounds)
    ]
    return torch.cat(each, dim=1), None
