"""From a model's name to the spec that pins everything about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from llmembed.backbones import folder_checks, weights
from llmembed.backbones.declared import Declared, declared, files_of_hub
from llmembed.backbones.hardware import best_dtype
from llmembed.backbones.layouts import check_attention, version_of, width_of
from llmembed.backbones.presets import PRESETS, Preset, preset_of
from llmembed.backbones.spec import (
    BackboneSpec,
    Dtype,
    LongTexts,
    Read,
    parse_reads,
    sorted_reads,
)
from llmembed.errors import ConfigError, ModelError, UnsupportedError

DEFAULT_MAX_TOKENS = 512
"""For models that are no preset; less where their context is shorter."""

# Their position table starts after the padding index, so it is longer than the context.
_POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


def resolve(
    model: str,
    *,
    reads: str | Iterable[Read] | None = None,
    max_tokens: int | None = None,
    long_texts: LongTexts | None = None,
    dtype: Dtype | Literal["auto"] = "auto",
    template: str | None = None,
    prompt: str | None = None,
    normalise: bool | None = None,
    count_special_tokens: bool = True,
    post_norm: bool = True,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> BackboneSpec:
    """The spec of a preset, a local folder or a hub id.

    What a model of sentence-transformers says of its pooling, its prompt, the length of its texts
    and of its vectors holds where nothing else is asked for. ``prompt``: the name of one of its
    prompts, or ``none``.

    A preset's rows always hold its default reads besides those asked for, so that several
    classifiers over it share one store. A hub id is resolved to its commit; local weights are
    hashed (once for as long as the files do not change). ``dtype``: ``auto`` is what this machine
    computes best in; where others do the work, give what ``best_dtype`` says there. Raises
    ``ModelError`` when the model can't be found or checked, ``ConfigError`` when it can't be read
    as asked.
    """
    preset = preset_of(model)
    location = preset.location if preset else model
    folder = weights.local_folder(location)
    if folder is None and not preset and model.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {model}")
    if folder is not None:
        folder_checks.check_files(folder)
    config = load_config(location, folder, revision, trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"{model} is an encoder-decoder: only encoders and decoders serve as backbones"
        )
    text_config = config.get_text_config()
    asked = parse_reads(reads) if reads is not None else ()
    own = _declared(location, folder, preset, getattr(config, "_commit_hash", None) or revision)
    default = parse_reads(preset.reads if preset else own.reads or "mean:1")
    if preset or not asked:
        asked = sorted_reads({*asked, *default})
    _check_depths(model, asked, int(text_config.num_hidden_layers))

    weights_sha256: str | None
    config_digest: str | None
    if folder is not None:
        weights_sha256 = weights.weights_sha256(folder)
        check_weights(location, preset.weights_sha256 if preset else None, weights_sha256)
        pinned = f"sha256-{weights_sha256[:12]}"
        tokenizer_digest = weights.tokenizer_sha256(folder)
        config_digest = weights.config_sha256(folder, code=trust_remote_code)
    else:
        weights_sha256, config_digest = None, None  # the commit pins them
        pinned = getattr(config, "_commit_hash", None) or revision or ""
        if not pinned:
            raise ModelError(f"the commit of {location} on the hub can't be told: name a revision")
        tokenizer_digest = f"commit-{pinned}"

    tokens = _max_tokens(model, preset, max_tokens, own.max_tokens, text_config)
    check_attention(model, config, tokens)
    if template is not None and prompt is not None:
        raise ConfigError(f"{model} is given both a template and a prompt: name one of them")
    folder_checks.check_tokenizer(
        str(folder or location),
        None if folder else pinned,
        folder_checks.vocabulary_of(config),
        digest=tokenizer_digest,
        trust_remote_code=trust_remote_code,
    )
    return BackboneSpec(
        model=_name(model, folder),
        revision=pinned,
        weights_sha256=weights_sha256,
        tokenizer_digest=tokenizer_digest,
        width=width_of(model, asked, text_config),
        reads=asked,
        max_tokens=tokens,
        dtype=best_dtype() if dtype == "auto" else dtype,
        location=location if preset or folder is None else str(folder),
        long_texts=long_texts or "cut",
        template=own.template(prompt, model) if template is None else template,
        count_special_tokens=count_special_tokens,
        post_norm=post_norm,
        attention=_attention(config, location, folder, pinned, trust_remote_code),
        trust_remote_code=trust_remote_code,
        config_digest=config_digest,
        extractor_version=version_of(asked, text_config),
        normalise=own.normalise if normalise is None else normalise,
    )


def own_reads(model: str, revision: str | None = None) -> str:
    """The pooling that a model's own files name; ``mean:1`` where they name none, and of
    presets."""
    preset = preset_of(model)
    location = preset.location if preset else model
    folder = weights.local_folder(location)
    return _declared(location, folder, preset, revision).reads or "mean:1"


def how_read(spec: BackboneSpec, model: str) -> str | None:
    """One sentence on what ``resolve`` took from ``model``'s own files; None where these say
    nothing."""
    folder = weights.local_folder(spec.location)
    commit = None if folder else spec.revision
    return _declared(spec.location, folder, preset_of(model), commit).sentence(spec)


def _declared(
    location: str, folder: Path | None, preset: Preset | None, revision: str | None
) -> Declared:
    """Presets are read as their papers do."""
    if preset is not None:
        return Declared()
    if folder is not None:
        whole = weights.whole_of(folder)
        return declared(whole, whole.name)
    found = declared(None, location.rpartition("/")[2], files_of_hub(location, revision))
    if found.inside:
        raise ModelError(
            f"{location} keeps its transformer in {found.inside}: download it, and name its folder"
        )
    return found


def _name(model: str, folder: Path | None) -> str:
    for name, preset in PRESETS.items():
        if model == name or (name in PRESETS.own and model == preset.location):
            return name
    return weights.whole_of(folder).name if folder else model


def check_weights(
    location: str, expected: str | None, found: str, *, what: str = "weights"
) -> None:
    """Raise ``ModelError`` when files are not the ones that were meant."""
    if expected is not None and expected != found:
        raise ModelError(
            f"the {what} of {location} hash to {found[:12]}…, not to {expected[:12]}… as "
            "expected: changed or damaged"
        )


def load_config(
    location: str, folder: Path | None, revision: str | None, trust_remote_code: bool
) -> Any:
    """The model's Hugging Face configuration, without its weights; of a hub id with its commit as
    ``_commit_hash``, which transformers 5.23 does not tell."""
    from transformers import AutoConfig
    from transformers.utils.hub import cached_file

    try:
        config: Any = AutoConfig.from_pretrained(
            str(folder or location), revision=revision, trust_remote_code=trust_remote_code
        )
        if folder is None and getattr(config, "_commit_hash", None) is None:
            place = Path(str(cached_file(location, "config.json", revision=revision))).as_posix()
            found = re.search(r"/snapshots/([0-9a-f]{40})/", place)
            config._commit_hash = found and found[1]
        return config
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"{location} is no preset ({', '.join(PRESETS)}), and neither a folder nor a hub id "
            f"that can be read: {reason}"
        ) from error


def _attention(
    config: Any, location: str, folder: Path | None, pinned: str, trust_remote_code: bool
) -> Literal["sdpa", "eager"]:
    """``eager`` where the model's class has no attention by torch's fused kernel."""
    from transformers import AutoModel
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    code = (getattr(config, "auto_map", None) or {}).get("AutoModel")
    found: Any
    try:
        if trust_remote_code and code:
            revision = None if folder else pinned
            found = get_class_from_dynamic_module(code, str(folder or location), revision=revision)
        else:
            found = AutoModel._model_mapping[type(config)]
    except (KeyError, OSError, ValueError):
        return "sdpa"  # what is wrong with it is said when it is loaded
    classes = found if isinstance(found, (tuple, list)) else (found,)
    return "sdpa" if all(getattr(each, "_supports_sdpa", False) for each in classes) else "eager"


def _check_depths(model: str, reads: Iterable[Read], layers: int) -> None:
    deepest = max(read.depth for read in reads)
    if deepest > layers + 1:
        raise ConfigError(
            f"{model} has {layers} blocks, so depths go from 1 to {layers + 1} (the token "
            f"embeddings), not to {deepest}"
        )


def context_length(config: Any) -> int | None:
    """The most tokens a text may have, special ones included; None where there is no bound."""
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return None
    if config.model_type in _POSITIONS_AFTER_PADDING:
        return int(positions) - (config.pad_token_id or 0) - 1
    return int(positions)


def _max_tokens(
    model: str, preset: Preset | None, asked: int | None, declared: int | None, config: Any
) -> int:
    context = context_length(config)
    if asked is None:
        wanted = preset.max_tokens if preset else declared or DEFAULT_MAX_TOKENS
        return wanted if context is None else min(wanted, context)
    if context is not None and asked > context:
        raise ConfigError(
            f"max_tokens {asked} is more than the context of {model}, which is {context}"
        )
    if asked < 8:
        raise ConfigError(f"max_tokens {asked} is too few: at least 8")
    return asked
