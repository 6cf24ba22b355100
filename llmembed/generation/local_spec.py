"""A local causal model, pinned: what a worker needs to load it, and what tells it from others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmembed.backbones import best_dtype, folder_checks, weights
from llmembed.backbones.quantising import Bits, check_installed
from llmembed.backbones.resolving import context_length, load_config
from llmembed.backbones.spec import Dtype
from llmembed.errors import ConfigError, ModelError, UserError
from llmembed.generation.adapters import adapter_sha256

UNTRAINED_FILE = "llmembed-untrained.json"
"""In a model's folder: its weights were never trained. ``reason`` in it says so in words."""
UNTRAINED = "its weights are random: an untrained model"

GENERATOR_VERSION = 1
"""Raised whenever the same spec would answer otherwise than before."""


@dataclass(frozen=True, kw_only=True)
class LocalSpec:
    """``revision``: the hub's commit, or ``sha256-`` and the start of the weights' digest for a
    folder. ``digest``: over tokenizer and configuration of a folder. ``batch_tokens``: positions
    of prompts and answers computed at once. ``share_prefix``: compute the beginning that prompts
    have in common once. ``adapter``: a folder of adapters in peft's form that are put on the model,
    ``quantise``: the bits in which its linear layers are read. ``scores_end``: the answer's end
    counts as a token of every candidate, without which none could beat another that it begins
    with; right for a model that was trained to write these answers and their end. ``or_float32``:
    a device that does not compute in bfloat16 takes float32 instead of refusing."""

    model: str
    location: str
    revision: str
    digest: str
    weights_sha256: str | None
    dtype: Dtype
    context: int | None
    batch_tokens: int
    device: str = "auto"
    share_prefix: bool = True
    adapter: str | None = None
    adapter_sha256: str | None = None
    quantise: Bits | None = None
    scores_end: bool = False
    or_float32: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}@{self.revision}"

    def check_fits(self, size: int, longest: int) -> None:
        """Raise ``UserError`` where a prompt of ``size`` tokens and its ``longest`` answer do not
        fit the context."""
        if self.context is not None and size + longest > self.context:
            raise UserError(
                f"a prompt of {size} tokens and an answer of up to {longest} do not fit into the "
                f"context of {self.model}, which is {self.context} tokens: shorten one of them"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on besides prompt and sampling."""
        more = {
            "adapter": self.adapter_sha256,
            "quantise": self.quantise,
            "scores_end": self.scores_end or None,
        }
        return {
            "model": self.model,
            "revision": self.revision,
            "digest": self.digest,
            "dtype": self.dtype,
            "version": GENERATOR_VERSION,
            **{name: value for name, value in more.items() if value is not None},
        }


def pin(
    model: str,
    *,
    revision: str | None,
    dtype: Dtype | Literal["auto"],
    device: str,
    batch_tokens: int,
    share_prefix: bool,
    adapter: str | None = None,
    quantise: Bits | None = None,
) -> LocalSpec:
    """The spec of a local folder or a hub id. Raises ``ModelError``, ``ConfigError``."""
    if batch_tokens < 1:
        raise ConfigError(f"batch_tokens {batch_tokens} is too few: at least 1")
    if quantise is not None:
        check_installed(quantise)
    folder = weights.local_folder(model)
    if folder is None and model.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {model}")
    if folder is not None:
        folder_checks.check_files(folder)
    config = load_config(model, folder, revision, trust_remote_code=False)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{model} is an encoder-decoder; only causal models generate here")
    sha256 = None
    if folder is not None:
        sha256 = weights.weights_sha256(folder)
        pinned = f"sha256-{sha256[:12]}"
        digest = f"{weights.tokenizer_sha256(folder)[:16]}-{_settings_digest(folder)[:16]}"
    else:
        pinned = getattr(config, "_commit_hash", None) or revision or ""
        digest = ""  # the commit pins all
        if not pinned:
            raise ModelError(f"the commit of {model} on the hub can't be told: name a revision")
    folder_checks.check_tokenizer(
        str(folder or model),
        None if folder else pinned,
        folder_checks.vocabulary_of(config),
        digest=digest,
    )
    return LocalSpec(
        model=folder.name if folder else model,
        location=str(folder or model),
        revision=pinned,
        digest=digest,
        weights_sha256=sha256,
        dtype=best_dtype() if dtype == "auto" else dtype,
        context=context_length(config.get_text_config()),
        batch_tokens=batch_tokens,
        device=device,
        share_prefix=share_prefix,
        adapter=adapter,
        adapter_sha256=None if adapter is None else adapter_sha256(adapter),
        quantise=quantise,
    )


def untrained(location: str) -> str | None:
    """Why a model's answers say nothing of accuracy; None where its folder says nothing."""
    file = Path(location) / UNTRAINED_FILE
    if not file.is_file():
        return None
    try:
        reason = json.loads(file.read_text(encoding="utf-8")).get("reason")
    except (ValueError, AttributeError):
        reason = None
    return str(reason or UNTRAINED)


def _settings_digest(folder: Path) -> str:
    """Of the model's configuration and whatever else in the folder changes an answer."""
    import hashlib

    digest = hashlib.sha256(weights.config_sha256(folder, code=False).encode())
    for name in ("generation_config.json", "chat_template.jinja", "chat_template.json"):
        file = folder / name
        if file.is_file():
            digest.update(f"{name} {weights.sha256(file)}\n".encode())
    return digest.hexdigest()
