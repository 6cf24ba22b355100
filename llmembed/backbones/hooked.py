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


def has_blocks(model: Any) -> bool:
    """Whether the model's blocks can be told apart."""
    return find_blocks(model, int(model.config.get_text_config().num_hidden_layers)) is not None


class _FirstToken(nn.Module):
    """Stands where a pooler was that nobody reads."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden[:, 0]


def mask_of(ids: Tensor, lengths: Tensor, padded: bool) -> Tensor | None:
    """(B, T) and (B,) -> int64 (B, T), 1 where a token is; None where there is no padding."""
    if not padded:
        return None
    position = torch.arange(ids.shape[1], device=ids.device)
    return (position < lengths[:, None]).long()


def settings_of(model: Any) -> dict[str, Any]:
    """Always without a cache: with one, texts may leak into each other."""
    accepted = inspect.signature(model.forward).parameters
    return {"use_cache": False} if "use_cache" in accepted else {}


class ListedForward:
    """(B, T) ids and (B,) lengths -> float32 (B, R, D), from the model's own list of states: all of
    them are computed and kept, which takes the most time and memory.

    Depth 1 is always read after the final norm. Raises ``UnsupportedError`` where what the model
    lists is no (B, T, D).
    """

    def __init__(self, model: Any, spec: BackboneSpec, pool: Pool) -> None:
        self._model, self._pool, self._spec = model, pool, spec
        self._settings = settings_of(model)
        if any(read.depth > 1 for read in spec.reads):
            self._settings["output_hidden_states"] = True

    def __call__(self, ids: Tensor, lengths: Tensor, padded: bool) -> Tensor:
        output = self._model(
            input_ids=ids, attention_mask=mask_of(ids, lengths, padded), **self._settings
        )
        found = []
        for read in self._spec.reads:
            if read.pooling == "pooler":
                found.append(output.pooler_output.float())
                continue
            hidden = output.last_hidden_state if read.depth == 1 else self._listed(output, read)
            wanted = (*ids.shape, self._spec.width)
            if tuple(hidden.shape) != wanted:
                raise UnsupportedError(
                    f"{self._spec.label} can't be read at depth {read.depth}: its states there "
                    f"have the shape {tuple(hidden.shape)}, not {wanted} (texts, tokens, width)"
                )
            found.append(self._pool(hidden, lengths, read))
        return torch.stack(found, dim=1)

    def _listed(self, output: Any, read: Read) -> Tensor:
        states: tuple[Tensor, ...] = getattr(output, "hidden_states", None) or ()
        if read.depth > len(states):
            raise UnsupportedError(
                f"{self._spec.label} can't be read at depth {read.depth}: it lists "
                f"{len(states)} states"
            )
        return states[-read.depth]

    def settle(self) -> None:
        """Nothing of the model can be left out."""

    def remove(self) -> None:
        """It changed nothing of the model."""


class HookedForward:
    """(B, T) ids and (B,) lengths -> float32 (B, R, D), through the model's own forward.

    ``settle`` gives back what is never reached; ``remove`` leaves the model as it was. Raises
    ``UnsupportedError`` where the blocks can't be told apart."""

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
        self._settings = settings_of(model)
        self._layers = layers = int(model.config.get_text_config().num_hidden_layers)
        blocks = find_blocks(model, layers)
        if blocks is None:
            raise UnsupportedError(
                f"the blocks of {spec.label} can't be told apart, so it can't be read before "
                "its final norm: leave post_norm on"
            )
        self._blocks = blocks
        self._shallowest = 1 if self._pooler else min(self._reads)
        self._hooks = []
        for depth in self._reads:
            if depth == layers + 1:
                enough = depth == self._shallowest
                hook = self._before(depth, enough)
                self._hooks.append(blocks[0].register_forward_pre_hook(hook, with_kwargs=True))
            elif depth > 1 or not spec.post_norm:
                enough = depth == self._shallowest and depth > 1
                after = self._after(depth, enough)
                self._hooks.append(blocks[layers - depth].register_forward_hook(after))

    def settle(self) -> None:
        """Drop the blocks that are never reached, whose weights need no memory, and a pooler that
        nobody reads."""
        if not self._pooler and isinstance(getattr(self._model, "pooler", None), nn.Module):
            self._model.pooler = _FirstToken()
        for place in range(max(1, self._layers - self._shallowest + 1), self._layers):
            self._blocks[place] = nn.Identity()

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

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
        try:
            output = self._model(
                input_ids=ids, attention_mask=mask_of(ids, lengths, padded), **self._settings
            )
        except _Enough:
            output = None
        found, self._found = self._found, {}
        if output is not None:
            for place in self._pooler:
                found[place] = output.pooler_output.float()
            for place, read in self._reads.get(1, ()):
                if place not in found:
                    found[place] = self._pool(output.last_hidden_state, lengths, read)
        return torch.stack([found[place] for place in range(self._count)], dim=1)
