"""BERT-like encoders on the CPU, several texts in one row without any padding.

The same numbers as the model's own forward up to rounding (tested), with less work: linear layers
and norms see tokens only, query, key and value are one product with weights laid out for the
processor beforehand, and attention is computed for each run of equally long texts, so that it
needs no mask and its scores stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from llmembed.backbones.hooked import Pool
from llmembed.backbones.spec import BackboneSpec, Read

# Model types whose modules are laid out and named as BERT's.
_BERT_LIKE = {"bert", "camembert", "roberta", "xlm-roberta"}
_POSITIONS_AFTER_PADDING = _BERT_LIKE - {"bert"}

SCORES_AT_ONCE = 1 << 20
"""Attention scores computed together: 2 MB in bfloat16, what two cores hold in their own caches."""

Linear = Callable[[Tensor], Tensor]
Run = tuple[int, int, int]
"""First token, number of texts, tokens of each."""


def is_packable(model: Any, spec: BackboneSpec, device: torch.device) -> bool:
    """Whether ``PackedForward`` gives what the model's own forward would."""
    config = model.config
    return bool(
        device.type == "cpu"
        and config.model_type in _BERT_LIKE
        and not spec.trust_remote_code
        and not config.is_decoder
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and all(read.pooling != "mean_padded" for read in spec.reads)
    )


class PackedForward:
    """Flat token ids of texts sorted by length -> float32 (B, R, D)."""

    def __init__(self, model: Any, spec: BackboneSpec, pool: Pool) -> None:
        config = model.config
        self._heads = int(config.num_attention_heads)
        self._pad = int(config.pad_token_id or 0)
        self._after_padding = config.model_type in _POSITIONS_AFTER_PADDING
        self._embeddings, self._pooler = model.embeddings, model.pooler
        self._reads, self._pool = spec.reads, pool
        self._layers = len(model.encoder.layer)
        self._last = min(read.depth for read in spec.reads)
        self._blocks = [
            _Block(block) for block in model.encoder.layer[: self._layers + 1 - self._last]
        ]

    def settle(self) -> None:
        """What it needs of the model it has taken already."""

    def remove(self) -> None:
        """It changed nothing of the model."""

    def __call__(self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Tensor:
        """``ids`` (tokens,), ``lengths`` (B,) of the texts in it, equal ones side by side."""
        starts = np.cumsum(lengths) - lengths
        runs = list(_runs(lengths))
        found: dict[int, Tensor] = {}
        positions = torch.from_numpy(self._positions(ids, starts, lengths))
        hidden = self._embeddings(
            input_ids=torch.from_numpy(ids)[None], position_ids=positions[None]
        )[0]
        self._take(self._layers + 1, hidden, runs, found)
        for place, block in enumerate(self._blocks):
            hidden = block(hidden, runs, self._heads)
            self._take(self._layers - place, hidden, runs, found)
        return torch.stack([found[place] for place in range(len(self._reads))], dim=1)

    def _positions(
        self,
        ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        if not self._after_padding:
            return np.arange(len(ids)) - np.repeat(starts, lengths)
        # RoBERTa counts from the padding index on, and skips padding tokens within a text.
        real = (ids != self._pad).astype(np.int64)
        count = np.cumsum(real)
        before = np.repeat((count - real)[starts], lengths)
        return np.asarray((count - before) * real + self._pad)

    def _take(self, depth: int, hidden: Tensor, runs: list[Run], found: dict[int, Tensor]) -> None:
        for place, read in enumerate(self._reads):
            if read.depth == depth:
                pooled = [self._pooled(hidden, run, read) for run in runs]
                found[place] = torch.cat(pooled) if len(pooled) > 1 else pooled[0]

    def _pooled(self, hidden: Tensor, run: Run, read: Read) -> Tensor:
        first, texts, length = run
        states = hidden[first : first + texts * length].view(texts, length, -1)
        if read.pooling == "pooler":
            pooled: Tensor = self._pooler(states)
            return pooled.float()
        return self._pool.dense(states, read)


def _runs(lengths: npt.NDArray[np.int64]) -> Iterator[Run]:
    """Texts of one length side by side."""
    edges = np.flatnonzero(np.diff(lengths)) + 1
    first = 0
    for start, stop in zip([0, *edges], [*edges, len(lengths)], strict=True):
        length = int(lengths[start])
        yield first, int(stop - start), length
        first += int(stop - start) * length


class _Block:
    """One encoder block; takes the weights it needs from the model's own."""

    def __init__(self, block: Any) -> None:
        attention, heads = block.attention, block.attention.self
        parts = (heads.query, heads.key, heads.value)
        self._qkv = _linear(
            torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        )
        self._scale = float(heads.scaling)
        self._attended = _linear_of(attention.output.dense)
        self._attended_norm = attention.output.LayerNorm
        self._inner = _linear_of(block.intermediate.dense)
        self._activation = block.intermediate.intermediate_act_fn
        self._outer = _linear_of(block.output.dense)
        self._outer_norm = block.output.LayerNorm

    def __call__(self, hidden: Tensor, runs: list[Run], heads: int) -> Tensor:
        mixed = _attention(self._qkv(hidden), runs, heads, self._scale)
        hidden = self._attended_norm(self._attended(mixed).add_(hidden))
        inner = self._activation(self._inner(hidden))
        output: Tensor = self._outer_norm(self._outer(inner).add_(hidden))
        return output


def _attention(qkv: Tensor, runs: list[Run], heads: int, scale: float) -> Tensor:
    """(tokens, 3 · D) -> (tokens, D), each text seeing itself only."""
    width = qkv.shape[1] // 3
    mixed = qkv.new_empty(len(qkv), width)
    nothing = qkv.new_empty(1, 1, 1)  # what baddbmm would add, were beta not 0
    for first, texts, length in runs:
        end = first + texts * length
        split = qkv[first:end].view(texts, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = split.reshape(3, texts * heads, length, -1)
        out = mixed[first:end].view(texts, length, heads, -1)
        step = max(1, SCORES_AT_ONCE // (heads * length * length))
        for text in range(0, texts, step):
            rows = slice(text * heads, (text + step) * heads)
            scores = torch.baddbmm(
                nothing, query[rows], key[rows].transpose(1, 2), beta=0, alpha=scale
            )
            seen = torch.bmm(torch.softmax(scores, dim=-1), value[rows])
            out[text : text + step] = seen.view(-1, heads, length, out.shape[-1]).transpose(1, 2)
    return mixed


def _linear_of(layer: nn.Linear) -> Linear:
    return _linear(layer.weight, layer.bias)


def _linear(weight: Tensor, bias: Tensor) -> Linear:
    """x -> x · weightᵀ + bias; through oneDNN, where torch has it, with the weight laid out once
    for the processor (4 to 10 % faster than laying it out at each call)."""
    weight, bias = weight.detach().contiguous(), bias.detach()
    if not _prepacks(weight.dtype):
        return lambda x: nn.functional.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    apply = torch.ops.mkldnn._linear_pointwise

    def linear(x: Tensor) -> Tensor:
        output: Tensor = apply(x, packed, bias, "none", [], "")
        return output

    return linear


def _prepacks(dtype: torch.dtype) -> bool:
    if dtype != torch.bfloat16 or not torch._C._has_mkldnn:
        return False
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    known = all(hasattr(torch.ops.mkldnn, name) for name in names)
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
