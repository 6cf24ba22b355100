"""What a model's own files say of how it is read: those of sentence-transformers.

::

    modules.json                          the steps: transformer, pooling, dense layers, unit length
    1_Pooling/config.json                 the pooling
    sentence_bert_config.json             the most tokens
    config_sentence_transformers.json     prompts by name, and which one is taken by default

Models of the first years have their transformer, with this length, in ``0_Transformer/``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmembed.backbones.spec import BackboneSpec, parse_reads
from llmembed.backbones.weights import MODULES
from llmembed.errors import ConfigError, ModelError

NO_PROMPT = "none"
_PROMPTS = "config_sentence_transformers.json"
_LENGTHS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# As pooling is written since version 5.5, and before it.
_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Published before files could hold prompts; from their model cards. E5 wants one before every
# text, "query: " where vectors are features of a classifier; BGE before queries alone.
_CARDS: tuple[tuple[str, dict[str, str], str | None], ...] = (
    (
        r"(?:multilingual-)?e5-(?:small|base|large)(?:-v2|-unsupervised)?",
        {"query": "query: ", "document": "passage: "},
        "query",
    ),
    (
        r"bge-(?:small|base|large)-en(?:-v1\.5)?",
        {
            "query": "Represent this sentence for searching relevant passages: ",
            "document": "",
        },
        None,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """``reads``: its pooling, None where it names none that is read here. ``inside``: where below
    its folder the transformer lies, "" for the folder itself. ``prompts``: by name, each ending
    where the text begins; ``default``: the name of the one it takes. ``left_out``: of what it
    declares, what is not done here."""

    reads: str | None = None
    inside: str = ""
    max_tokens: int | None = None
    normalise: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    left_out: tuple[str, ...] = ()

    def sentence(self, spec: BackboneSpec) -> str | None:
        """How ``spec`` reads the model beside what it declares; None where it declares nothing."""
        if self == Declared():
            return None
        said = [f"{spec.label} is read by what its own files say where nothing else is set"]
        if self.reads is not None:
            read = set(parse_reads(self.reads)) <= set(spec.reads)
            said.append(f"its pooling {self.reads} is {'' if read else 'not '}read")
        said.append("at unit length" if spec.normalise else "at the length it gives")
        said.append(f"at most {spec.max_tokens} tokens")
        if spec.template is not None:
            said.append(f"each text as {spec.template!r}")
        elif any(self.prompts.values()):
            named = ", ".join(name for name, words in self.prompts.items() if words)
            said.append(f"without a prompt ({named}: set `prompt`)")
        if self.left_out:
            said.append(f"without {', '.join(self.left_out)}")
        return f"{said[0]}: {'; '.join(said[1:])}"

    def template(self, prompt: str | None, model: str) -> str | None:
        """What surrounds a text: the prompt of that name, ``none``, or None for the model's own
        choice. Raises ``ConfigError`` where there is no such prompt."""
        name = self.default if prompt is None else prompt
        if name is None or (name == NO_PROMPT and name not in self.prompts):
            return None
        if name not in self.prompts:
            known = ", ".join([*self.prompts, NO_PROMPT])
            told = f"it has {known}" if self.prompts else "its files name none"
            raise ConfigError(
                f"{model} has no prompt {name!r}, {told}; any other is written as a template, "
                "such as 'query: {text}'"
            )
        words = self.prompts[name]
        return f"{words}{{text}}" if words else None


def declared(folder: Path | None, name: str, files: Mapping[str, Path] | None = None) -> Declared:
    """What the files in ``folder``, or ``files`` by their path in the model, say; ``name`` is the
    model's last name, by which the prompts of its card are known. Raises ``ModelError`` where a
    file can't be read."""

    def told(path: str) -> Any:
        file = folder / path if folder is not None else (files or {}).get(path)
        if file is None or not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{file} can't be read: {error}") from error

    prompts, default = _prompts(told(_PROMPTS), name)
    modules = told(MODULES)
    if not isinstance(modules, list) or not modules:
        return Declared(prompts=prompts, default=default)
    try:
        steps = [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in modules]
    except (TypeError, KeyError) as error:
        raise ModelError(
            f"{MODULES} of {name} is not as sentence-transformers writes it"
        ) from error
    if steps[0][0] != "Transformer":
        raise ModelError(
            f"{name} begins with a step {steps[0][0]!r}: only models over a transformer are read"
        )
    inside = steps[0][1]
    lengths = [told(f"{inside}/{file}" if inside else file) for file in _LENGTHS]
    own: dict[str, Any] = next((each for each in lengths if each), {})
    left_out = ["its lower-casing"] if own.get("do_lower_case") else []
    reads: str | None = None
    normalise = dense = False
    for kind, path in steps[1:]:
        if kind == "Pooling":
            config = told(f"{path}/config.json") or {}
            reads, said = _reads(config)
            left_out += [said] if said else []
            if config.get("include_prompt") is False and default is not None:
                left_out.append("leaving the prompt's tokens out of the mean")
        elif kind == "Normalize":
            # What follows a dense layer would be done to another vector.
            normalise = not dense
        elif kind != "Dropout":
            dense = True
            left_out.append(f"its step {kind} ({path})")
    return Declared(
        reads=reads,
        inside=inside,
        max_tokens=own.get("max_seq_length"),
        normalise=normalise,
        prompts=prompts,
        default=default,
        left_out=tuple(left_out),
    )


def _reads(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The pooling as reads of depth 1, or what it is where it can't be read."""
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_POOLINGS.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    unknown = [mode for mode in modes if mode not in _POOLINGS]
    if unknown:
        return None, f"its pooling {unknown[0]!r}"
    return " ".join(f"{_POOLINGS[mode]}:1" for mode in modes), None


def _prompts(told: Any, name: str) -> tuple[dict[str, str], str | None]:
    found = told if isinstance(told, dict) else {}
    prompts = {str(key): str(value or "") for key, value in (found.get("prompts") or {}).items()}
    default = found.get("default_prompt_name")
    # Newer versions write empty ones into every model.
    if any(prompts.values()) or default:
        return prompts, default
    for pattern, of_card, default_of_card in _CARDS:
        if re.fullmatch(pattern, name):
            return dict(of_card), default_of_card
    return prompts, None


@lru_cache(maxsize=32)
def files_of_hub(model: str, revision: str | None) -> Mapping[str, Path]:
    """The files of a hub id that ``declared`` reads, those that there are, as far as the hub or
    its cache on this machine has them."""
    from transformers.utils.hub import cached_file

    files: dict[str, Path] = {}

    def fetch(path: str) -> bool:
        place = cached_file(
            model,
            path,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if place is not None:
            files[path] = Path(place)
        return place is not None

    fetch(_PROMPTS)
    if fetch(MODULES):
        steps = json.loads(files[MODULES].read_text(encoding="utf-8"))
        inside = str(steps[0].get("path", ""))
        any(fetch(f"{inside}/{name}" if inside else name) for name in _LENGTHS)
        for step in steps:
            if str(step["type"]).endswith(".Pooling"):
                fetch(f"{step['path']}/config.json")
    return files
