"""From a model's name to where its files are."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmembed.backbones import folder_checks, weights
from llmembed.backbones.presets import preset_of
from llmembed.backbones.resolving import check_weights, context_length, load_config
from llmembed.errors import ModelError, UnsupportedError

ADAPTER = "adapter"
"""Folder of a fine-tuned model that holds its adapters by themselves, in peft's form."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model to start from. ``location``: folder or hub id; ``revision``: the hub's commit, None
    for a folder. ``name`` is for people; ``context``: the most tokens, None where unbounded.
    ``embedding_parameters``: of ``parameters``, those of words at the beginning and the end."""

    name: str
    location: str
    revision: str | None
    weights_sha256: str | None
    context: int | None
    parameters: int
    embedding_parameters: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def label(self) -> str:
        pinned = self.weights_sha256[:12] if self.weights_sha256 else self.revision
        return f"{self.name}@{pinned}"

    def folder(self) -> str:
        """Where to load from in this process: a package's files lie elsewhere on each machine."""
        found = weights.local_folder(self.location)
        if found is None and self.weights_sha256 is not None:
            raise ModelError(
                f"there is no folder {self.location} here, where {self.name}'s weights are read: "
                "put it where every worker sees it"
            )
        if found is not None:
            check_weights(self.location, self.weights_sha256, weights.weights_sha256(found))
        return str(found or self.location)


def source_of(model: str, *, revision: str | None = None, causal: bool = False) -> Source:
    """A preset, a local folder or a hub id; ``causal``: with the layer that says words. Raises
    ``ModelError``, ``UnsupportedError``."""
    no_gpu_is_fine()
    preset = preset_of(model)
    location = preset.location if preset else model
    folder = weights.local_folder(location)
    if folder is None and not preset and model.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {model}")
    if folder is not None:
        folder_checks.check_files(folder)
    config = load_config(location, folder, revision, trust_remote_code=False)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(f"{model} is an encoder-decoder, which can't be fine-tuned here")
    digest = None
    if folder is not None:
        digest = weights.weights_sha256(folder)
        check_weights(location, preset.weights_sha256 if preset else None, digest)
    commit = None if folder else getattr(config, "_commit_hash", None) or revision
    folder_checks.check_tokenizer(
        str(folder or location),
        commit,
        folder_checks.vocabulary_of(config),
        digest=weights.tokenizer_sha256(folder) if folder else "",
        pads=True,
    )
    parameters, embedding = _parameters(config, causal=causal)
    return Source(
        name=model if preset or folder is None else weights.whole_of(folder).name,
        location=location if preset or folder is None else str(folder),
        revision=commit,
        weights_sha256=digest,
        context=context_length(config.get_text_config()),
        parameters=parameters,
        embedding_parameters=embedding,
    )


def no_gpu_is_fine() -> None:
    """DeepSpeed, which transformers loads in any case, else warns on the terminal that there is no
    GPU."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _parameters(config: Any, *, causal: bool) -> tuple[int, int]:
    """How many the model has, and its embeddings, counted on its shape alone: nothing is read, no
    memory taken."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    automatic: Any = AutoModelForCausalLM if causal else AutoModel
    try:
        with torch.device("meta"):
            model = automatic.from_config(config)
    except ValueError as error:
        what = "causal model" if causal else "model"
        raise ModelError(f"a {config.model_type} is no {what} that can be fine-tuned") from error
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    words = {id(p): p.numel() for end in ends if end is not None for p in end.parameters()}
    return sum(each.numel() for each in model.parameters()), sum(words.values())


def untrained_reason(location: str) -> str | None:
    """Why the model's figures say nothing of accuracy, as its folder says; None otherwise."""
    import json

    file = Path(location) / "llmembed-untrained.json"
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        told = {}
    return str(told.get("reason") or "its weights are random: an untrained model")
