"""A causal model at work: prompts -> answers, or the log-probabilities of given answers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmembed.backbones import quantising, weights
from llmembed.backbones.backbone import device_of, quiet_loading
from llmembed.backbones.batching import Work, run_batches
from llmembed.backbones.folder_checks import check_fits, embedding_rows, loading
from llmembed.backbones.hardware import best_dtype, check_dtype
from llmembed.backbones.resolving import check_weights
from llmembed.errors import ModelError, UnsupportedError, UserError
from llmembed.generation.adapters import with_adapters
from llmembed.generation.local_spec import LocalSpec
from llmembed.generation.prefix import Prefix, Prefixes, is_repeatable, repeated
from llmembed.generation.prompt_tokens import PromptTokeniser
from llmembed.generation.request import Answer, Sampling
from llmembed.generation.sampling import choose, draws
from llmembed.generation.writing import Writing
from llmembed.prompts import Prompt


@dataclass(kw_only=True)
class _Read:
    """Prompts read so far. ``logits``: float32 (B, vocabulary) after the last token; ``mask``:
    int64 (B, positions); ``lengths``: int64 (B,), tokens of each prompt."""

    logits: torch.Tensor
    past: Any
    mask: torch.Tensor
    lengths: torch.Tensor


class LocalModel:
    """The model of ``spec`` on one device.

    Prompts are padded on the left, masked there, and count their positions without the padding,
    so a prompt's answer is the same alone and in any batch, up to rounding (which may tip the
    balance between two words as good as equal, more easily in bfloat16).
    """

    def __init__(self, spec: LocalSpec) -> None:
        self.device = device_of(spec.device)
        best = best_dtype(str(self.device))
        if spec.or_float32 and best != "bfloat16":
            spec = replace(spec, dtype="float32")
        check_dtype(spec.dtype, best, what=spec.model)
        self.spec = spec
        self.tokens = PromptTokeniser(
            location=spec.location, revision=None if spec.weights_sha256 else spec.revision
        )
        self.model = _load(spec, self.device)
        check_fits(self.tokens.tokeniser, embedding_rows(self.model), spec.location)
        self.work = Work()
        accepted = inspect.signature(self.model.forward).parameters
        self._keeps = "logits_to_keep" in accepted
        self._positions = "position_ids" in accepted
        self._ends = _ends(self.model, self.tokens.tokeniser)
        self._filler = min(self._ends, default=0)
        self.prefixes = Prefixes(self._past_of, enabled=spec.share_prefix)
        self._budget = spec.batch_tokens

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Answer]:
        """One answer a prompt, in order. Raises ``UserError`` where one does not fit the
        context."""
        rows = self._rows(prompts, longest=sampling.max_tokens)
        answers: dict[int, Answer] = {}

        def forward(batch: npt.NDArray[np.int64], length: int) -> int:
            some = [rows[i] for i in batch]
            answers.update(zip(batch.tolist(), self._write(some, prefix, sampling), strict=True))
            return length * len(batch)

        with torch.inference_mode():
            prefix = self.prefixes.of(rows)
            lengths = np.array([len(row) + sampling.max_tokens for row in rows], dtype=np.int64)
            self._budget = run_batches(lengths, forward, budget=self._budget, work=self.work)
        return [answers[i] for i in range(len(rows))]

    def score(
        self, prompts: Sequence[Prompt], candidates: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], list[int]]:
        """Log-probabilities (N, C) summed over each candidate's tokens, without the end of the
        answer unless ``scores_end``, and the tokens of each prompt with its candidates. A prompt is
        read once for all candidates."""
        spaces = [self.tokens.space_after(self.tokens.text(prompt)) for prompt in prompts]
        forms = {
            space: self.tokens.candidates(candidates, after="a" if space else "\n")
            for space in {*spaces}
        }
        for candidate, *forms_of in zip(candidates, *forms.values(), strict=True):
            if not all(forms_of):
                raise UserError(f"the candidate {candidate!r} has no token of {self.spec.model}")
        if self.spec.scores_end:
            end = int(self.tokens.tokeniser.eos_token_id)
            forms = {space: [[*ids, end] for ids in form] for space, form in forms.items()}
        longest = max((len(ids) for form in forms.values() for ids in form), default=0)
        rows = self._rows(prompts, longest=longest)
        scores = np.zeros((len(rows), len(candidates)), dtype=np.float32)

        def forward(batch: npt.NDArray[np.int64], length: int) -> int:
            for space, form in forms.items():
                some = [i for i in batch if spaces[i] == space]
                if some:
                    scores[some] = self._score([rows[i] for i in some], form, prefix)
            return length * len(batch)

        with torch.inference_mode():
            prefix = self.prefixes.of(rows)
            lengths = np.array([len(row) + longest for row in rows], dtype=np.int64)
            self._budget = run_batches(lengths, forward, budget=self._budget, work=self.work)
        counts = [
            len(row) + sum(map(len, forms[space])) for row, space in zip(rows, spaces, strict=True)
        ]
        return scores, counts

    def _rows(self, prompts: Sequence[Prompt], *, longest: int) -> list[list[int]]:
        rows = [row or [self._filler] for row in self.tokens.encode(prompts)]
        size = max(map(len, rows), default=0)
        self.spec.check_fits(size, longest)
        return rows

    def _write(
        self, rows: Sequence[Sequence[int]], prefix: Prefix | None, sampling: Sampling
    ) -> list[Answer]:
        read = self._read(rows, prefix)
        writings = [Writing(self.tokens.tokeniser, self._ends, sampling) for _ in rows]
        drawn = [
            draws(row, sampling.seed, sampling.max_tokens) if sampling.temperature else ()
            for row in rows
        ]
        active = [*range(len(rows))]
        for step in range(sampling.max_tokens):
            drawn_now = [float(drawn[i][step]) for i in active] if sampling.temperature else []
            chosen = choose(read.logits, sampling.temperature, sampling.top_p, drawn_now)
            told: list[float | None] = [None] * len(active)
            if sampling.logprobs:
                # Of the model's own distribution, whatever the temperature.
                every = torch.log_softmax(read.logits, dim=-1)
                told = every.gather(1, chosen[:, None]).squeeze(1).tolist()
            ended = [
                writings[i].add(token, logprob)
                for i, token, logprob in zip(active, chosen.tolist(), told, strict=True)
            ]
            going = [place for place, end in enumerate(ended) if not end]
            if not going:
                break
            if len(going) < len(active):
                index = torch.tensor(going, device=self.device)
                read.past.reorder_cache(index)
                read.mask, read.lengths = read.mask[index], read.lengths[index]
                chosen = chosen[index]
                active = [active[place] for place in going]
            read.mask = torch.cat([read.mask, read.mask.new_ones(len(active), 1)], dim=1)
            logits, read.past = self._forward(
                chosen[:, None], read.mask, read.lengths[:, None], read.past
            )
            read.logits, read.lengths = logits[:, -1], read.lengths + 1
        return [one.answer(len(row)) for one, row in zip(writings, rows, strict=True)]

    def _score(
        self,
        rows: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        prefix: Prefix | None,
    ) -> npt.NDArray[np.float32]:
        read = self._read(rows, prefix)
        first = [ids[0] for ids in candidates]
        scores = torch.log_softmax(read.logits, dim=-1)[:, first]
        longer = [c for c, ids in enumerate(candidates) if len(ids) > 1]
        if longer and not is_repeatable(read.past):
            raise UnsupportedError(
                f"{self.spec.model} keeps its past in a way that candidates can't share: generate "
                "instead of scoring"
            )
        size = max((len(candidates[c]) - 1 for c in longer), default=0)
        places = len(rows) * (read.mask.shape[1] + size)
        at_once = max(1, self._budget // places)
        for start in range(0, len(longer), at_once):
            some = longer[start : start + at_once]
            scores[:, some] += self._rest(read, [candidates[c] for c in some])
        return np.asarray(scores.cpu().numpy(), dtype=np.float32)

    def _rest(self, read: _Read, candidates: Sequence[Sequence[int]]) -> torch.Tensor:
        """Summed over all tokens but the first, float32 (B, candidates)."""
        rows, count = len(read.lengths), len(candidates)
        size = max(map(len, candidates)) - 1
        ids = torch.full((count, size + 1), self._filler, device=self.device)
        for c, candidate in enumerate(candidates):
            ids[c, : len(candidate)] = torch.tensor([*candidate], device=self.device)
        told = torch.tensor([len(candidate) - 1 for candidate in candidates], device=self.device)
        steps = torch.arange(size, device=self.device)
        counted = steps[None] < told[:, None]  # (candidates, size)
        ids, counted = ids.repeat(rows, 1), counted.repeat(rows, 1)
        mask = torch.cat([read.mask.repeat_interleave(count, dim=0), counted.long()], dim=1)
        positions = read.lengths.repeat_interleave(count)[:, None] + steps[None]
        past = repeated(read.past, count)
        logits, _ = self._forward(ids[:, :-1], mask, positions, past, every=True)
        each = torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None]).squeeze(2)
        return (each * counted).sum(dim=1).reshape(rows, count)

    def _read(self, rows: Sequence[Sequence[int]], prefix: Prefix | None) -> _Read:
        head = len(prefix) if prefix is not None else 0
        own = [row[head:] for row in rows]
        width = max(map(len, own))
        ids = torch.full((len(rows), width), self._filler, device=self.device)
        mask = torch.ones((len(rows), head + width), dtype=torch.long, device=self.device)
        for b, row in enumerate(own):
            ids[b, width - len(row) :] = torch.tensor([*row], device=self.device)
            mask[b, head : head + width - len(row)] = 0
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, head:]
        past = prefix.for_rows(len(rows)) if prefix is not None else None
        logits, past = self._forward(ids, mask, positions, past)
        return _Read(logits=logits[:, -1], past=past, mask=mask, lengths=mask.sum(dim=1))

    def _past_of(self, ids: Sequence[int]) -> Any:
        row = torch.tensor([[*ids]], device=self.device)
        mask = torch.ones_like(row)
        return self._forward(row, mask, mask.cumsum(dim=1) - 1, None)[1]

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        past: Any,
        *,
        every: bool = False,
    ) -> tuple[torch.Tensor, Any]:
        """Float32 logits (B, T, vocabulary), T 1 unless ``every``, and the past with ``ids``."""
        more: dict[str, Any] = {}
        if self._positions:
            more["position_ids"] = positions
        if self._keeps and not every:
            more["logits_to_keep"] = 1
        out = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=True, **more
        )
        logits = out.logits if every else out.logits[:, -1:]
        return logits.float(), out.past_key_values


def _load(spec: LocalSpec, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    automatic: Any = AutoModelForCausalLM
    folder = weights.needed_folder(spec.location, spec.weights_sha256)
    if folder is not None:
        weights.check_plain(folder)
        check_weights(spec.location, spec.weights_sha256, weights.weights_sha256(folder))
    dtype = getattr(torch, spec.dtype)
    more = _over_gpus(spec, device)
    if spec.quantise is not None:
        more = quantising.loading(spec.quantise, dtype, device)
    what = "can't be loaded as a causal model from safetensors"
    with loading(spec.location, what), quiet_loading():
        model, report = automatic.from_pretrained(
            str(folder or spec.location),
            revision=None if folder else spec.revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    if report["missing_keys"]:
        names = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"the checkpoint of {spec.location} lacks weights of the model: {names}")
    if spec.quantise is not None:
        model = quantising.settle(model, spec.model)
    if spec.adapter is not None:
        model = with_adapters(model, spec.adapter, spec.adapter_sha256)
    model = model.eval().requires_grad_(False)
    return model if "device_map" in more else model.to(device)


def _over_gpus(spec: LocalSpec, device: torch.device) -> dict[str, Any]:
    """Layers go to several GPUs where this process sees several (``runtime.gpus_per_actor``)."""
    several = device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1
    return {"device_map": "auto"} if several and spec.quantise is None else {}


def _ends(model: Any, tokeniser: Any) -> frozenset[int]:
    """The tokens that end an answer."""
    said = [getattr(model.generation_config, "eos_token_id", None), tokeniser.eos_token_id]
    flat = [token for each in said for token in (each if isinstance(each, list) else [each])]
    return frozenset(int(token) for token in flat if token is not None)
