"""Where a frozen backbone stands: in this process, or in a deployment of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from llmembed.backbones import BackboneSpec, TokenisedBatch
from llmembed.contract import Usage
from llmembed.errors import WorkerError
from llmembed.methods.views import views_from_json
from serve.model.batching import Batched, TokenBatcher
from serve.model.energy import metered

if TYPE_CHECKING:
    import numpy as np

    from serve.settings import Batching, Limits


FAILURES = 5
"""Batches failed one after another that make a replica unhealthy: a broken GPU stays broken."""


class Host(Protocol):
    """Embeds texts with one backbone. ``spec`` says which and how it is read."""

    spec: BackboneSpec

    async def tokenise(self, texts: Sequence[str]) -> tuple[TokenisedBatch, Usage]:
        """The tokens, and what making them took."""
        ...

    async def embed(self, tokens: TokenisedBatch) -> Batched[np.ndarray]:
        """N texts -> float32 (N, R, D). Raises ``OverloadedError``."""
        ...

    @property
    def queued_tokens(self) -> int: ...

    def check(self) -> None:
        """Raise ``WorkerError`` when the last batches all failed."""
        ...

    def close(self) -> None: ...


class Tokenising:
    """Tokenises beside the event loop: a long text takes milliseconds."""

    def __init__(self, spec: BackboneSpec) -> None:
        from llmembed.backbones import Tokeniser

        self.spec = spec
        self._tokeniser = Tokeniser(spec)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenise")

    async def tokenise(self, texts: Sequence[str]) -> tuple[TokenisedBatch, Usage]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, metered, lambda: self._tokeniser(list(texts))
        )


class LocalHost(Tokenising):
    """A backbone in this process, one batch at a time. ``threads``: of torch."""

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        batching: Batching,
        limits: Limits,
        threads: int | None = None,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        from llmembed.backbones import Backbone

        super().__init__(spec)
        self._backbone = Backbone(spec, threads=threads)
        self._failures = 0
        on_gpu = self._backbone.device.type == "cuda"
        self._batcher: TokenBatcher[TokenisedBatch, np.ndarray] = TokenBatcher(
            self._embed,
            budget=batching.tokens or (32_768 if on_gpu else 4096),
            room=limits.queued_tokens,
            wait_seconds=batching.wait_seconds,
            observe=observe,
            name="backbone",
        )

    async def embed(self, tokens: TokenisedBatch) -> Batched[np.ndarray]:
        return await self._batcher.submit(tokens, int(tokens.kept.sum()))

    def warm_up(self) -> None:
        """One forward pass, blocking: what is made lazily is made now."""
        self._backbone.embed(self._tokeniser(["a text to warm up with"]))

    def check(self) -> None:
        if self._failures >= FAILURES:
            raise WorkerError(f"the backbone {self.spec.label} failed {self._failures} times")

    def _embed(self, batches: Sequence[TokenisedBatch]) -> list[np.ndarray]:
        self._failures += 1
        rows = self._backbone.embed(TokenisedBatch.joined(batches))
        self._failures = 0
        found, start = [], 0
        for batch in batches:
            found.append(rows[start : start + len(batch)])
            start += len(batch)
        return found

    @property
    def queued_tokens(self) -> int:
        return self._batcher.queued_tokens

    def close(self) -> None:
        self._batcher.close()


def backbones_of(folder: Any) -> list[BackboneSpec]:
    """The frozen backbones of the classifier saved in ``folder``, read without loading it."""
    from llmembed.methods import manifest_of

    views = views_from_json(manifest_of(folder)["settings"].get("views") or {})
    return list({v.backbone.fingerprint(): v.backbone for v in views.values()}.values())


def weights_bytes(spec: BackboneSpec) -> int:
    """How large a backbone's weights are: its files, or by its configuration from the hub."""
    import torch

    from llmembed.backbones.weights import needed_folder

    folder = needed_folder(spec.location, spec.weights_sha256)
    if folder is not None:
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    import transformers

    auto: Any = transformers

    config = auto.AutoConfig.from_pretrained(
        spec.location, revision=spec.revision, trust_remote_code=spec.trust_remote_code
    )
    with torch.device("meta"):
        model = auto.AutoModel.from_config(config, trust_remote_code=spec.trust_remote_code)
    size: int = getattr(torch, spec.dtype).itemsize
    return size * int(sum(weight.numel() for weight in model.parameters()))
