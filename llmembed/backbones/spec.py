"""What is read from a frozen model, written down: every setting that changes a number."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from llmembed.backbones import weights
from llmembed.errors import ConfigError
from llmembed.permissions import check_code

Pooling = Literal["mean", "cls", "pooler", "last_token", "mean_padded"]
LongTexts = Literal["cut", "head_tail", "windows"]
Dtype = Literal["float32", "bfloat16", "float16"]

POOLINGS: tuple[str, ...] = get_args(Pooling)
LONG_TEXTS: tuple[str, ...] = get_args(LongTexts)
DTYPES: tuple[str, ...] = get_args(Dtype)
ATTENTIONS = ("sdpa", "eager")

EXTRACTOR_VERSION = 2
"""Raised whenever the same spec would give other numbers than before."""

_ADDED = {"normalise": False}
"""Fields younger than the stores that there are, and what they mean where they are not written."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """One vector taken from a text's forward pass.

    ``depth`` counts blocks from the end: 1 is the model's output (after the final norm where the
    model has one), d > 1 the output of the d-th block from the end, as
    ``output_hidden_states=True`` gives at ``hidden_states[-d]``. Where a model's list says
    otherwise (mamba's and rwkv's ends in the norm's output, an entry of its own), the list holds.
    ``pooling``: ``mean`` over the text's tokens; ``cls`` the first token; ``last_token`` the last;
    ``pooler`` the model's own pooler (depth 1 only); ``mean_padded`` the mean over a fixed length,
    padding included, only to reproduce others' figures.
    """

    depth: int = 1
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(f"unknown pooling {self.pooling!r}; known are {', '.join(POOLINGS)}")
        if self.depth < 1:
            raise ConfigError(f"depth {self.depth} does not exist: depths count from 1, the last")
        if self.pooling == "pooler" and self.depth != 1:
            raise ConfigError("the pooler reads depth 1 only: write `pooler` without a depth")

    def __str__(self) -> str:
        return "pooler" if self.pooling == "pooler" else f"{self.pooling}:{self.depth}"


def _place(read: Read) -> tuple[int, int]:
    return POOLINGS.index(read.pooling), read.depth


def sorted_reads(reads: Iterable[Read]) -> tuple[Read, ...]:
    """The distinct reads in the one order in which rows hold them: by pooling, then depth."""
    return tuple(sorted(set(reads), key=_place))


def parse_reads(text: str | Iterable[Read]) -> tuple[Read, ...]:
    """``"mean:1-5 cls:1 pooler"`` -> seven reads, in the order of ``sorted_reads``.

    One word for each pooling, with a depth, a range or a list of both (``mean:1,3-5``); without
    one, depth 1. Reads already parsed pass through. Raises ``ConfigError``.
    """
    if not isinstance(text, str):
        reads = list(text)
    else:
        reads = []
        for word in text.split():
            pooling, _, depths = word.partition(":")
            for piece in (depths or "1").split(","):
                found = re.fullmatch(r"(\d+)(?:-(\d+))?", piece)
                if found is None:
                    raise ConfigError(f"can't read {word!r}: write for example `mean:1-5`")
                first, last = int(found[1]), int(found[2] or found[1])
                if last > DEEPEST:
                    raise ConfigError(f"can't read {word!r}: no model has {last} blocks")
                if last < first:
                    raise ConfigError(f"can't read {word!r}: the range {piece} is empty")
                reads += [
                    Read(depth=depth, pooling=pooling)  # type: ignore[arg-type]
                    for depth in range(first, last + 1)
                ]
    if not reads:
        raise ConfigError("nothing to read: name at least one pooling, for example `mean:1`")
    return sorted_reads(reads)


DEEPEST = 1000
"""More blocks than any model has."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """A frozen model and how it is read: R reads of width D for each text.

    Every field but ``location`` belongs to the fingerprint: it changes a number, or pins the files
    that do. ``revision`` is the hub's commit, or ``sha256-`` and the start of ``weights_sha256``
    for local files. ``post_norm``: depth 1 is read after the final norm. ``template`` surrounds
    each text, which stands for ``{text}`` in it. ``count_special_tokens``: whether the tokens that
    the tokenizer adds count in ``mean``. ``config_digest``: of a local model's configuration and,
    where it runs code of its own, that code. ``normalise``: every vector is brought to length 1.
    ``location``: hub id, folder, or ``package:NAME``.
    """

    model: str
    revision: str
    weights_sha256: str | None
    tokenizer_digest: str
    width: int
    reads: tuple[Read, ...]
    max_tokens: int
    dtype: Dtype
    location: str
    long_texts: LongTexts = "cut"
    template: str | None = None
    post_norm: bool = True
    count_special_tokens: bool = True
    attention: Literal["sdpa", "eager"] = "sdpa"
    trust_remote_code: bool = False
    config_digest: str | None = None
    extractor_version: int = EXTRACTOR_VERSION
    normalise: bool = False

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.long_texts, LONG_TEXTS, "rule for long texts"),
            (self.dtype, DTYPES, "dtype"),
            # Of another name transformers would fetch a kernel from the hub and run it.
            (self.attention, ATTENTIONS, "attention"),
        ):
            if value not in known:
                raise ConfigError(f"unknown {what} {value!r}; known are {', '.join(known)}")
        if self.template is not None and self.template.count("{text}") != 1:
            raise ConfigError("a template holds {text} exactly once, where each text goes")
        if self.reads != sorted_reads(self.reads):
            raise ConfigError("reads must be distinct and in the order of `sorted_reads`")

    def fingerprint(self) -> str:
        """16 hexadecimal digits over every field but ``location``."""
        content = {key: value for key, value in self.to_json().items() if key != "location"}
        text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A short readable name: ``org/name`` loses its organisation."""
        return self.model.rstrip("/").rpartition("/")[2]

    def to_json(self) -> dict[str, Any]:
        """Fields younger than stores and classifiers written before them are left out where they
        change nothing, so that those stay what they are."""
        told = {**asdict(self), "reads": [str(read) for read in self.reads]}
        return {k: v for k, v in told.items() if k not in _ADDED or v != _ADDED[k]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BackboneSpec:
        """What ``to_json`` wrote. Raises ``ModelError`` for a model whose code or download was not
        allowed: see ``llmembed.permissions``."""
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigError(
                f"a backbone's spec has unknown fields: {', '.join(sorted(unknown))}; "
                "it was written by another version of llmembed"
            )
        spec = cls(**{**data, "reads": parse_reads(" ".join(data["reads"]))})
        if spec.trust_remote_code:
            check_code(spec.label, spec.location)
        if spec.weights_sha256 is None:  # else it is read from a folder or not at all
            weights.check_location(spec.location, spec.revision)
        return spec


@dataclass(frozen=True, kw_only=True)
class View:
    """Some reads of one backbone, in the order given: what a fusion sees as (N, L, D)."""

    backbone: BackboneSpec
    reads: tuple[Read, ...]

    def __post_init__(self) -> None:
        missing = [str(read) for read in self.reads if read not in self.backbone.reads]
        if missing or not self.reads:
            have = " ".join(map(str, self.backbone.reads))
            raise ConfigError(
                f"{self.backbone.label} is not read at {' '.join(missing) or 'nothing'}: "
                f"its rows hold {have}"
            )

    def indices(self) -> list[int]:
        """Where each of the view's reads stands in a row (R, D) of the backbone."""
        return [self.backbone.reads.index(read) for read in self.reads]

    def to_json(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone.to_json(),
            "reads": [str(read) for read in self.reads],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> View:
        return cls(
            backbone=BackboneSpec.from_json(data["backbone"]),
            reads=tuple(parse_reads(word)[0] for word in data["reads"]),
        )
