"""A frozen model at work: token windows -> (N, R, D)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmembed.backbones import weights
from llmembed.backbones.batching import Work, run_batches
from llmembed.backbones.folder_checks import check_fits, embedding_rows, loading
from llmembed.backbones.hardware import best_dtype, check_dtype
from llmembed.backbones.hooked import HookedForward, ListedForward, Pool, has_blocks
from llmembed.backbones.packed import PackedForward, is_packable
from llmembed.backbones.reading import Reading, Way, choose
from llmembed.backbones.resolving import check_weights
from llmembed.backbones.spec import BackboneSpec
from llmembed.backbones.tokeniser import TokenisedBatch, Tokeniser
from llmembed.errors import ModelError, UnsupportedError

logger = logging.getLogger(__name__)

CPU_TOKEN_BUDGET = 4096
GPU_TOKEN_BUDGET = 32768


class Backbone:
    """The model of ``spec`` on one device, read as ``spec`` says.

    ``device``: ``auto`` (a GPU where there is one) or what torch calls it. ``threads``: of this
    process, None leaves them. ``token_budget``: positions in a batch, padding included.
    ``reference``: use the model's own forward even where a faster one of ours gives the same.
    ``emulate``: compute in bfloat16 even where the device emulates it; None leaves it to the
    variable ``LLMEMBED_EMULATE_BF16``.
    ``work`` counts tokens, positions, batches and halvings of the budget over all calls.

    A text's vectors are the same alone and in any batch, and the same as plain Hugging Face
    gives, up to rounding: the difference is at most 1e-5 (float32) or 2e-2 (bfloat16, float16) of
    the vector's length. A probe at loading holds every model to it (see ``reading``); one that is
    laid out otherwise is read a slower way, which ``reading`` tells and is logged, or refused.

    Raises ``ModelError`` when the weights can't be loaded, are not those of the spec or do not fit
    the tokenizer, or when the device can't compute in its dtype, and ``UnsupportedError`` when the
    model can't be read.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        device: str = "auto",
        threads: int | None = None,
        token_budget: int | None = None,
        reference: bool = False,
        emulate: bool | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.spec = spec
        self.device = device_of(device)
        check_dtype(spec.dtype, best_dtype(str(self.device)), what=spec.label, emulate=emulate)
        self.work = Work()
        gpu = self.device.type == "cuda"
        self._budget = token_budget or (GPU_TOKEN_BUDGET if gpu else CPU_TOKEN_BUDGET)
        self.tokeniser = Tokeniser(spec)
        model = load_model(spec, self.device)
        self._rows = embedding_rows(model)
        check_fits(self.tokeniser.tokenizer, self._rows, spec.location)
        pad = self.tokeniser.pad_id
        self._pad = pad if self._rows is None or pad < self._rows else 0
        self.reading = self._chosen(model, reference=reference)
        self.reading.way.settle()
        if self.reading.why is not None:
            logger.warning(self.reading.why)
        padded = any(read.pooling == "mean_padded" for read in spec.reads)
        self._fixed_length = spec.max_tokens if padded else None

    def _chosen(self, model: Any, *, reference: bool) -> Reading:
        spec = self.spec
        pool = Pool(spec, self.tokeniser.special_head, self.tokeniser.special_tail)
        makers: list[Callable[[], Way]] = []
        if not reference and is_packable(model, spec, self.device):
            makers.append(lambda: PackedForward(model, spec, pool))
        if has_blocks(model) or not spec.post_norm:
            makers.append(lambda: HookedForward(model, spec, pool))
        probe = self.tokeniser.probe(self._rows)

        def run(way: Way, alone: bool) -> npt.NDArray[np.float32]:
            budget = 1 if alone else CPU_TOKEN_BUDGET
            return self._vectors(probe, way, budget=budget, work=Work())[0]

        with quiet_loading():
            return choose(spec, ListedForward(model, spec, pool), makers, run)

    def embed(self, tokens: TokenisedBatch) -> npt.NDArray[np.float32]:
        """N texts -> float32 (N, R, D), in their order.

        A text of several windows is their mean weighted by tokens. Windows are sorted by length
        and batched by ``token_budget``; out of memory halves it for good and goes on. A text with
        a token that the model has no embedding for is NaN. Raises ``ModelError`` when a single
        window does not fit.
        """
        if self.reading.alone:
            vectors, _ = self._vectors(tokens, self.reading.way, budget=1, work=self.work)
        else:
            vectors, self._budget = self._vectors(
                tokens,
                self.reading.way,
                budget=self._budget,
                work=self.work,
                fixed_length=self._fixed_length,
            )
        joined = _joined(vectors, tokens)
        if self.spec.normalise:
            length = np.linalg.norm(joined, axis=-1, keepdims=True)
            joined = joined / np.maximum(length, np.float32(1e-12))
        return joined

    def _vectors(
        self,
        tokens: TokenisedBatch,
        way: Way,
        *,
        budget: int,
        work: Work,
        fixed_length: int | None = None,
    ) -> tuple[npt.NDArray[np.float32], int]:
        """Of each window, float32 (W, R, D), and the budget that held."""
        lengths = tokens.window_lengths
        shape = (len(lengths), len(self.spec.reads), self.spec.width)
        gpu = self.device.type == "cuda"
        vectors = torch.zeros(shape, dtype=torch.float32)
        # A tokenizer without special tokens: "" has no token.
        filled = np.flatnonzero(lengths)
        if self._rows is not None and int(tokens.ids.max(initial=0)) >= self._rows:
            most = np.maximum.reduceat(tokens.ids, tokens.window_starts[:-1][filled])
            vectors[torch.from_numpy(filled[most >= self._rows])] = torch.nan
            filled = filled[most < self._rows]

        copies: list[tuple[torch.Tensor, torch.Tensor]] = []

        def forward(batch: npt.NDArray[np.int64], length: int) -> int:
            rows = filled[batch]
            place = torch.from_numpy(rows)
            if isinstance(way, PackedForward):
                ids = np.concatenate([tokens.window(row) for row in rows]).astype(np.int64)
                vectors[place] = way(ids, lengths[rows])
                return len(ids)
            pooled = way(*self._padded(tokens, rows, length))
            if gpu:
                # Copied while the next batch computes: pinned, and waited for at the end.
                host = torch.empty(pooled.shape, dtype=torch.float32, pin_memory=True)
                copies.append((place, host.copy_(pooled, non_blocking=True)))
            else:
                vectors[place] = pooled
            return length * len(rows)

        with torch.inference_mode():
            budget = run_batches(
                lengths[filled], forward, budget=budget, work=work, fixed_length=fixed_length
            )
            if gpu:
                torch.cuda.synchronize(self.device)
            for place, host in copies:
                vectors[place] = host
        return vectors.numpy(), budget

    def _padded(
        self, tokens: TokenisedBatch, rows: npt.NDArray[np.int64], length: int
    ) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """Ids (B, T) and lengths (B,) on the device, and whether there is any padding."""
        lengths = tokens.window_lengths[rows]
        ids = np.full((len(rows), length), self._pad, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = tokens.window(row)
        return self._to_device(ids), self._to_device(lengths), bool(lengths.min() < length)

    def _to_device(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _joined(vectors: npt.NDArray[np.float32], tokens: TokenisedBatch) -> npt.NDArray[np.float32]:
    """Windows (W, R, D) -> texts (N, R, D)."""
    if len(vectors) == len(tokens):
        return vectors
    weight = np.maximum(tokens.window_lengths, 1).astype(np.float32)[:, None, None]
    starts = tokens.text_starts[:-1]
    total = np.add.reduceat(vectors * weight, starts, axis=0)
    return (total / np.add.reduceat(weight, starts, axis=0)).astype(np.float32)


def device_of(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("there is no CUDA device on this machine: use the device cpu")
    return found


def load_model(spec: BackboneSpec, device: torch.device) -> Any:
    """The bare model of ``spec``, without a head, in its dtype and in evaluation mode."""
    from transformers import AutoModel

    folder = weights.needed_folder(spec.location, spec.weights_sha256)
    if folder is not None:
        weights.check_plain(folder)
        check_weights(spec.location, spec.weights_sha256, weights.weights_sha256(folder))
        config = weights.config_sha256(folder, code=spec.trust_remote_code)
        check_weights(spec.location, spec.config_digest, config, what="configuration")
    with loading(spec.location), quiet_loading():
        model, report = AutoModel.from_pretrained(
            str(folder or spec.location),
            revision=None if folder else spec.revision,
            dtype=getattr(torch, spec.dtype),
            attn_implementation=spec.attention,
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
            output_loading_info=True,
        )
    _check_complete(spec, set(report["missing_keys"]))
    return model.eval().requires_grad_(False).to(device)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bar, no report of weights left out: what matters is checked after loading."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _check_complete(spec: BackboneSpec, missing: set[str]) -> None:
    """Weights a checkpoint lacks would be random numbers; only an unread pooler may lack them."""
    pooler = {key for key in missing if "pooler" in key.split(".")}
    if pooler and any(read.pooling == "pooler" for read in spec.reads):
        raise UnsupportedError(
            f"the checkpoint of {spec.label} has no pooler: read `cls` or `mean` instead"
        )
    if missing - pooler:
        names = ", ".join(sorted(missing - pooler)[:3])
        raise ModelError(f"the checkpoint of {spec.location} lacks weights of the model: {names}")


def embed_texts(
    spec: BackboneSpec, texts: Sequence[str], *, device: str = "auto", threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Texts -> float32 (N, R, D), all in this process; loads the model for this one call."""
    backbone = Backbone(spec, device=device, threads=threads)
    return backbone.embed(backbone.tokeniser(texts))
