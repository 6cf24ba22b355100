"""G small heads of equal shape side by side: batched matrix products, the backward pass by hand.

A head's step is so little work that most of its time is the overhead of a few dozen calls; side
by side G heads share them. Autograd would add its own, and the derivative of an MLP is short.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llmembed.heads.config import HeadConfig
from llmembed.heads.modules import dropout_mask

KINDS = ("mlp", "linear")
"""Heads whose backward pass is written here; any other is autograd's."""


class StackedHeads:
    """The heads of one task: (Linear, ReLU, dropout) for each hidden layer, then Linear.

    ``weights[i]`` (G, out, in) and ``biases[i]`` (G, out) are float32; matrix products are taken
    in ``low`` (bfloat16 or float32). ``cuts`` (G,): dropout probabilities in 256ths.
    """

    def __init__(self, heads: Sequence[nn.Module], cuts: Tensor, low: torch.dtype) -> None:
        own = [[m for m in head.modules() if isinstance(m, nn.Linear)] for head in heads]
        layers = list(zip(*own, strict=True))
        self.weights = [torch.stack([m.weight.detach() for m in layer]) for layer in layers]
        self.biases = [torch.stack([m.bias.detach() for m in layer]) for layer in layers]
        self.low = low
        self._set_cuts(cuts)
        self._allocate()

    def _set_cuts(self, cuts: Tensor) -> None:
        self.cuts = cuts.view(-1, 1, 1)
        self.scale = (256 / (256 - self.cuts.float())).to(self.low)
        self.drops = bool((cuts > 0).any())

    def _allocate(self) -> None:
        self.gradients = [torch.empty_like(p) for p in self.parameters]
        self._low = [
            p if self.low == torch.float32 else torch.empty_like(p, dtype=self.low)
            for p in self.parameters
        ]
        self.refresh()

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def refresh(self) -> None:
        """Take over new parameters into the copies that matrix products read."""
        for copy, p in zip(self._low, self.parameters, strict=True):
            if copy is not p:
                copy.copy_(p)

    def keep(self, rows: Tensor) -> None:
        """Go on with the heads at ``rows`` (G',) alone."""
        self.weights = [w[rows] for w in self.weights]
        self.biases = [b[rows] for b in self.biases]
        self._set_cuts(self.cuts.view(-1)[rows])
        self._allocate()

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Features (G, B, F) -> logits (G, B, C), float32. ``masks``: for each hidden layer what
        dropout multiplies its outputs (G, B, out) by; see ``DropoutDraws``."""
        count = len(self.weights)
        self._inputs = [x]
        for i in range(count):
            weight, bias = self._low[i], self._low[count + i]
            x = torch.baddbmm(bias.unsqueeze(1), self._inputs[-1], weight.transpose(1, 2))
            if i + 1 == count:
                break
            x.clamp_min_(0)
            if self.drops:
                x.mul_(masks[i])
            self._inputs.append(x)
        return x.float()

    def backward(self, d: Tensor, *, features: int) -> Tensor | None:
        """Fill ``gradients`` from the loss's derivative by the logits (G, B, C); returns the one
        by the first ``features`` features (G, B, .), if any."""
        count = len(self.weights)
        d = d.to(self.low)
        for i in reversed(range(count)):
            inputs = self._inputs[i]
            self.gradients[i].copy_(torch.bmm(d.transpose(1, 2), inputs))
            torch.sum(d, 1, dtype=torch.float32, out=self.gradients[count + i])
            if i == 0:
                break
            d = torch.bmm(d, self._low[i])
            # A unit that ReLU or dropout silenced is 0 in what the layer above saw.
            d = torch.ops.aten.threshold_backward(d, inputs, 0)
            if self.drops:
                d.mul_(self.scale)
        return torch.bmm(d, self._low[0][:, :, :features]) if features else None

    def logits(self, x: Tensor, row: int) -> Tensor:
        """(N, F) -> (N, C), float32, of the head at ``row``, as in inference."""
        count = len(self.weights)
        for i in range(count):
            x = torch.addmm(self.biases[i][row], x, self.weights[i][row].t())
            if i + 1 < count:
                x.clamp_min_(0)
        return x

    def widths(self) -> list[int]:
        """Of the hidden layers."""
        return [w.shape[1] for w in self.weights[:-1]]


class DropoutDraws:
    """Masks for dropout, one stream of random bytes for each seed: heads of one seed see the same
    draws, as they would when trained one by one. ``cuts`` uint8 (G,): see ``cuts_of``."""

    def __init__(self, seeds: Sequence[int], cuts: Tensor, low: torch.dtype) -> None:
        distinct = sorted(set(seeds))
        self.device, self.low = cuts.device, low
        self._generators = [torch.Generator(cuts.device).manual_seed(2**31 + s) for s in distinct]
        # One mask for all heads that share seed and cut: comparing bytes is what costs.
        own = [(distinct.index(s), cut) for s, cut in zip(seeds, cuts.tolist(), strict=True)]
        self._pairs = sorted(set(own))
        self.of = torch.tensor([self._pairs.index(pair) for pair in own], device=cuts.device)

    def keep(self, rows: Tensor) -> None:
        self.of = self.of[rows]

    def of_row(self, row: int, count: int) -> Tensor:
        """uint8 (count,) from the stream of one fit's seed."""
        return self._octets(self._pairs[int(self.of[row])][0], count)

    def _octets(self, which: int, count: int) -> Tensor:
        words = torch.empty((count + 7) // 8, dtype=torch.int64, device=self.device)
        words.random_(-(2**63), None, generator=self._generators[which])
        return words.view(torch.uint8)[:count]

    def draw(self, batch: int, widths: Sequence[int]) -> list[Tensor]:
        """For each hidden layer (G, B, out) in ``low``: 0 for what is dropped, for the others what
        keeps the mean as it was."""
        masks = []
        for width in widths:
            drawn = [self._octets(i, batch * width) for i in range(len(self._generators))]
            kept = [dropout_mask(drawn[seed], cut, self.low) for seed, cut in self._pairs]
            masks.append(torch.stack(kept)[self.of].view(-1, batch, width))
        return masks


def cuts_of(configs: Sequence[HeadConfig], device: torch.device) -> Tensor:
    """Dropout probabilities (G,) in 256ths."""
    cuts = [min(255, round(c.dropout * 256)) if c.kind == "mlp" else 0 for c in configs]
    return torch.tensor(cuts, device=device, dtype=torch.uint8)
