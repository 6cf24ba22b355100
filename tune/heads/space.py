"""What is searched of fusions and heads: configurations, and which of them are distinct.

A configuration says only what matters to it: σ, K and the aligning maps where its fusion has a
co-occurrence, widths and dropout where its head has layers, extra views where its fusion reads
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tune.space import Range, Walked, id_of

Shapes = Mapping[str, tuple[int, int]]
"""View -> (L, D), of every view an experiment names."""
CO_ONLY = ("sigma", "width", "align", "align_dropout")
MLP_ONLY = ("widths", "dropout")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One classifier to try. ``depths``: which depths of the primary view enter, 1 the last;
    ``extras``: the other views. None: of no matter here, or the default (``width``, ``depths``).
    """

    fusion: str
    primary: str = "L"
    depths: tuple[int, ...] | None = None
    extras: tuple[str, ...] = ()
    sigma: float | None = None
    width: int | None = None
    align: str | None = None
    align_dropout: float | None = None
    lexical: int = 0
    head: str = "mlp"
    widths: tuple[int, ...] | None = (256,)
    dropout: float | None = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch: int = 128
    class_weights: bool = False
    label_smoothing: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Configuration:
        own: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**own)

    @property
    def id(self) -> str:
        """Ten hexadecimal digits; equal configurations have equal ones."""
        return id_of(self.to_json())

    @property
    def title(self) -> str:
        return self.fusion

    @property
    def run_name(self) -> str:
        return self.fusion + ("" if self.sigma is None else f" sigma {self.sigma:g}")

    def differing(self, others: Sequence[Configuration]) -> dict[str, Any]:
        """The settings in which ``others`` of its fusion differ: what names this one."""
        own_kind = [other for other in others if other.fusion == self.fusion]
        varied = {
            key
            for other in own_kind
            for key, value in asdict(other).items()
            if value != getattr(own_kind[0], key)
        }
        own = {key: value for key, value in asdict(self).items() if key in varied}
        return {key: value for key, value in own.items() if value not in (None, ())}


DIMENSIONS = tuple(field.name for field in fields(Configuration))


@dataclass(frozen=True, kw_only=True)
class Space(Walked[Configuration]):
    """Fusions and heads over views of known ``shapes``."""

    shapes: Shapes

    def order(self) -> list[str]:
        return sorted(self.dimensions, key=lambda name: (name != "fusion", name != "head"))

    def matters(self, name: str, point: Mapping[str, Any]) -> bool:
        from llmembed.fusion import FUSIONS

        if name in CO_ONLY:
            fusion = point.get("fusion", "")
            return fusion in FUSIONS and FUSIONS[fusion].stacked is not None
        return not (name in MLP_ONLY and point.get("head") == "linear")

    def canonical(self, point: Mapping[str, Any]) -> Configuration | None:
        """The configuration at ``point``, without what does not matter to it; None where a view
        that its fusion reads does not enter."""
        from llmembed.fusion import FUSIONS

        given = dict(point)
        spec = FUSIONS[given["fusion"]]
        primary = given.setdefault("primary", "L")
        primaries = self.dimensions.get("primary", ("L",))
        assert not isinstance(primaries, Range)
        extras = tuple(given.get("extras", [v for v in self.shapes if v not in primaries]))
        named = {"L", *extras}
        if primary in extras or primary not in self.shapes or spec.missing(named):
            return None
        used = {*spec.extras(named), *spec.rows(named)}
        given["extras"] = tuple(view for view in extras if view in used)
        count, full = self.shapes[primary]
        depths = given.get("depths")
        if depths is not None:
            if max(depths) > count:
                return None
            if spec.depths == "last" and not spec.rows(named):
                depths = depths[:1]
            given["depths"] = None if depths == tuple(range(1, count + 1)) else tuple(depths)
        if len(depths or range(count)) == 1 and spec.depths in ("avg", "max", "concat"):
            given["fusion"] = _same_at_one_depth(given["fusion"])
        if spec.rows(named):
            narrowest = min(self.shapes[view][1] for view in spec.rows(named))
            width = given.get("width") or narrowest
            given["width"] = None if width == narrowest else width
            given.setdefault("sigma", 0.2)
            mapped = any(d != width for d in (full, *(self.shapes[v][1] for v in spec.rows(named))))
            given["align"] = given.get("align", "relu") if mapped else None
            drops = given["align"] == "relu"
            given["align_dropout"] = given.get("align_dropout", 0.5) if drops else None
        else:
            given.update(dict.fromkeys(CO_ONLY))
        if given.get("head", "mlp") == "linear":
            given.update(dict.fromkeys(MLP_ONLY))
        return Configuration(**given)


def _same_at_one_depth(fusion: str) -> str:
    """With one depth avg, max and concat are the same: the first of them names all."""
    from llmembed.fusion import FUSIONS

    spec = FUSIONS[fusion]
    for name, other in FUSIONS.items():
        if other.depths is not None and (
            (other.module, other.beside, other.stacked) == (spec.module, spec.beside, spec.stacked)
        ):
            return name
    return fusion
