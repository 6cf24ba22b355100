"""Any Hugging Face model, read by forward hooks that pool at once: the reference."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llmembed.backbones.spec import BackboneSpec, Read
from llmembed.errors import UnsupportedError


class Pool:
    """Pools hidden states (B, T, D) of one batch as the spec says, in float32.

    ``lengths`` (B,) tokens of each window, which start at position 0; ``special_head`` and
    ``special_tail`` say how many of them the tokenizer added at each end.
    """

    def __init__(self, spec: BackboneSpec, special_head: int = 0, special_tail: int = 0) -> None:
        self.first = 0 if spec.count_special_tokens else special_head
        self.drop = 0 if spec.count_special_tokens else special_tail

    def __call__(self, hidden: Tensor, lengths: Tensor, read: Read) -> Tensor:
        """(B, T, D), (B,) -> float32 (B, D)."""
        if read.pooling == "cls":
            return hidden[:, 0].float()
        if read.pooling == "last_token":
            rows = torch.arange(len(hidden), device=hidden.device)
            return hidden[rows, lengths - 1].float()
        if read.pooling == "mean_padded":
            return hidden.sum(dim=1, dtype=torch.float32) / hidden.shape[1]
        position = torch.arange(hidden.shape[1], device=hidden.device)
        end = (lengths - self.drop)[:, None]
        mask = (position >= self.first) & (position < end)
        count = mask.sum(dim=1, keepdim=True).clamp(min=1)
        # Masked in the model's dtype (exact: times 0 or 1), summed in float32. Padding may hold
        # NaN, so it is replaced, not multiplied.
        kept = hidden.masked_fill(~mask[:, :, None], 0)
        return kept.sum(dim=1, dtype=torch.float32) / count

    def dense(self, hidden: Tensor, read: Read) -> Tensor:
        """The same for windows that fill all T positions: (B, T, D) -> float32 (B, D)."""
        if read.pooling == "cls":
            return hidden[:, 0].float()
        if read.pooling == "last_token":
            return hidden[:, -1].float()
        counted = hidden[:, self.first : hidden.shape[1] - self.drop]
        return counted.sum(dim=1, dtype=torch.float32) / max(1, counted.shape[1])


class _Enough(Exception):
    """Raised by the last hook that is needed, so that no later block is computed."""


def find_blocks(model: nn.Module, layers: int) -> nn.ModuleList | None:
    """The list of the model's blocks: the one list of the right length that lies in no other such
    list. None where there are several, as in XLM, whose blocks are spread over lists of parts."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    }
    outer = [
        module
        for name, module in found.items()
        if not any(name.startswith(f"{other}.") for other in found)
    ]
    return outer[0] if len(outer) == 1 else None


class _FirstToken(nn.Module):
    """Stands where a pooler was that nobody reads."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden[:, 0]


class HookedForward:
    """(B, T) ids and (B,) lengths -> float32 (B, R, D), through the model's own forward."""

    def __init__(self, model: Any, spec: BackboneSpec, pool: Pool) -> None:
        self._model, self._pool = model, pool
        self._reads: dict[int, list[tuple[int, Read]]] = {}
        self._pooler: list[int] = []
        for place, read in enumerate(spec.reads):
            if read.pooling == "pooler":
                self._pooler.append(place)
            else:
                self._reads.setdefault(read.depth, []).append((place, read))
        self._count = len(spec.reads)
        self._lengths = torch.empty(0)
        self._found: dict[int, Tensor] = {}
        if not self._pooler and isinstance(getattr(model, "pooler", None), nn.Module):
            model.pooler = _FirstToken()

        layers = int(model.config.get_text_config().num_hidden_layers)
        blocks = find_blocks(model, layers)
        self._hooked = blocks is not None
        accepted = inspect.signature(model.forward).parameters
        # Always without a cache: with one, texts may leak into each other.
        self._settings = {"use_cache": False} if "use_cache" in accepted else {}
        if blocks is None:
            if not spec.post_norm:
                raise UnsupportedError(
                    f"the blocks of {spec.label} can't be told apart, so it can't be read before "
                    "its final norm: leave post_norm on"
                )
            return
        shallowest = 1 if self._pooler else min(self._reads)
        for depth in self._reads:
            if depth == layers + 1:
                enough = depth == shallowest
                blocks[0].register_forward_pre_hook(self._before(depth, enough), with_kwargs=True)
            elif depth > 1 or not spec.post_norm:
                enough = depth == shallowest and depth > 1
                blocks[layers - depth].register_forward_hook(self._after(depth, enough))
        self._at_output = spec.post_norm
        for place in range(max(1, layers - shallowest + 1), layers):
            blocks[place] = nn.Identity()  # never reached: their weights need no memory

    def _take(self, depth: int, hidden: Tensor) -> None:
        for place, read in self._reads[depth]:
            self._found[place] = self._pool(hidden, self._lengths, read)

    def _before(self, depth: int, enough: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._take(depth, args[0] if args else kwargs["hidden_states"])
            if enough:
                raise _Enough

        return hook

    def _after(self, depth: int, enough: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._take(depth, output[0] if isinstance(output, tuple) else output)
            if enough:
                raise _Enough

        return hook

    def __call__(self, ids: Tensor, lengths: Tensor, padded: bool) -> Tensor:
        self._lengths, self._found = lengths, {}
        mask = None
        if padded:
            position = torch.arange(ids.shape[1], device=ids.device)
            mask = (position < lengths[:, None]).long()
        try:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                output_hidden_states=not self._hooked,
                **self._settings,
            )
        except _Enough:
            output = None
        found, self._found = self._found, {}
        if output is not None:
            self._read_output(output, lengths, found)
        return torch.stack([found[place] for place in range(self._count)], dim=1)

    def _read_output(self, output: Any, lengths: Tensor, found: dict[int, Tensor]) -> None:
        for place in self._pooler:
            found[place] = output.pooler_output.float()
        for depth, wanted in self._reads.items():
            for place, read in wanted:
                if place not in found:
                    hidden = (
                        output.last_hidden_state if depth == 1 else output.hidden_states[-depth]
                    )
                    found[place] = self._pool(hidden, lengths, read)
