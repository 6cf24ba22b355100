"""Which vectors a model can give, told without loading its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmembed.backbones import weights
from llmembed.backbones.presets import preset_of
from llmembed.backbones.resolving import load_config
from llmembed.backbones.spec import parse_reads
from llmembed.errors import ModelError

# Published with a trained pooler; of others a hub id alone does not tell.
_POOLER_ON_THE_HUB = {"albert", "bert"}
# Their checkpoints may hold a pooler for a head of theirs, which the bare model does not have.
_BARE_WITHOUT_POOLER = {"deberta", "deberta-v2", "distilbert", "electra", "funnel", "xlm", "xlnet"}


def poolings_of(model: str, *, trust_remote_code: bool = False) -> frozenset[str]:
    """The poolings by which a preset, a local folder or a hub id can be read.

    ``mean`` (and ``mean_padded``) always. Encoders ``cls`` and, where the checkpoint holds a
    pooler, ``pooler``; decoders ``last_token`` (their first token has seen nothing but itself).
    Raises ``ModelError`` when there is no such model.
    """
    preset = preset_of(model)
    if preset is not None:
        given = {read.pooling for read in parse_reads(preset.reads)}
        return frozenset({"mean", "mean_padded"} | (given if "cls" in given else {"last_token"}))
    folder = weights.local_folder(model)
    if folder is None:
        if model.startswith((".", "/", "~")):
            raise ModelError(f"there is no folder {model}")
        config = load_config(model, None, None, trust_remote_code)
        facts = {name: getattr(config, name, None) for name in _FACTS}
    else:
        facts = _facts_of(folder)
    kind = str(facts["model_type"])
    if _is_decoder(kind, facts["architectures"] or (), bool(facts["is_decoder"])):
        return frozenset({"mean", "mean_padded", "last_token"})
    if folder is None:
        has_pooler = kind in _POOLER_ON_THE_HUB
    else:
        names = weights.weight_names(folder)
        has_pooler = kind not in _BARE_WITHOUT_POOLER and any(
            "pooler" in name.split(".") for name in names
        )
    return frozenset({"mean", "mean_padded", "cls"} | ({"pooler"} if has_pooler else set()))


_FACTS = ("model_type", "architectures", "is_decoder")


def _facts_of(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no readable config.json: {error}") from error
    return {name: config.get(name) for name in _FACTS}


def _is_decoder(kind: str, architectures: Sequence[str], is_decoder: bool) -> bool:
    if is_decoder or any(name.endswith("ForCausalLM") for name in architectures):
        return True
    from transformers.models.auto import modeling_auto

    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return causal and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
