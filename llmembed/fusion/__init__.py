"""Views of a text, each (B, L, D), become one row of features (B, F).

A view is what one frozen backbone says about a text: L depths of width D. The view ``"L"`` is the
primary one, read at several depths; every other view (``"B"`` and ``"R"`` in table 1 of LLMEmbed,
ACL 2024, and any more) is an extra. A view called ``"lexical"`` is always joined at the end.

``FUSIONS`` holds the fifteen of table 1 by name, with their numbers, and ours. A new one is a
module with one ``torch.nn.Module`` (see ``base.Fusion``) and one line here; packages add theirs by
entry points of the group ``llmembed.fusions``, each a ``FusionSpec``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmembed.errors import ConfigError
from llmembed.fusion.spec import EVERY, LEXICAL, PRIMARY, Align, FusionSpec
from llmembed.plugins import Table

if TYPE_CHECKING:
    from llmembed.fusion.base import Fusion

__all__ = [
    "EVERY",
    "FUSIONS",
    "LEXICAL",
    "PRIMARY",
    "Align",
    "FusionSpec",
    "available",
    "build_fusion",
]

_DEPTHS = "llmembed.fusion.depths:Depths"
_CO = "llmembed.fusion.cooccurrence:CoOccurrence"


def _problem(name: str, made: object) -> str | None:
    return None if isinstance(made, FusionSpec) else f"expected a FusionSpec, got {made!r}"


_OWN: dict[str, FusionSpec | str] = {
    "last": FusionSpec(number=1, module=_DEPTHS, depths="last"),
    "avg": FusionSpec(number=2, module=_DEPTHS, depths="avg"),
    "max": FusionSpec(number=3, module=_DEPTHS, depths="max"),
    "concat": FusionSpec(number=4, module=_DEPTHS, depths="concat"),
    "avg_b": FusionSpec(number=5, module=_DEPTHS, depths="avg", beside=("B",)),
    "max_b": FusionSpec(number=6, module=_DEPTHS, depths="max", beside=("B",)),
    "concat_b": FusionSpec(number=7, module=_DEPTHS, depths="concat", beside=("B",)),
    "avg_r": FusionSpec(number=8, module=_DEPTHS, depths="avg", beside=("R",)),
    "max_r": FusionSpec(number=9, module=_DEPTHS, depths="max", beside=("R",)),
    "concat_r": FusionSpec(number=10, module=_DEPTHS, depths="concat", beside=("R",)),
    "avg_b_r": FusionSpec(number=11, module=_DEPTHS, depths="avg", beside=("B", "R", EVERY)),
    "max_b_r": FusionSpec(number=12, module=_DEPTHS, depths="max", beside=("B", "R", EVERY)),
    "concat_b_r": FusionSpec(number=13, module=_DEPTHS, depths="concat", beside=("B", "R", EVERY)),
    "co": FusionSpec(number=14, module=_CO, stacked=(EVERY,)),
    "co_avg": FusionSpec(number=15, module=_CO, depths="avg", stacked=(EVERY,)),
    "co_avg_cat": FusionSpec(
        number=None, module=_CO, depths="avg", stacked=(EVERY,), beside=(EVERY,)
    ),
}
FUSIONS: Table[FusionSpec] = Table("llmembed.fusions", _OWN, check=_problem)


def available(shapes: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Names of the fusions that views of these ``(L, D)`` allow, in table 1's order.

    Left out are those that miss a view and those that would only repeat another one: with a
    single depth avg, max and concat are all ``last``.
    """
    flat = shapes.get(PRIMARY, (0, 0))[0] < 2
    names = []
    seen: set[tuple[object, ...]] = set()
    for name, spec in FUSIONS.items():
        if spec.missing(shapes):
            continue
        depths = "last" if flat and spec.depths is not None else spec.depths
        does = (spec.module, depths, spec.extras(shapes), spec.rows(shapes))
        if does not in seen:
            seen.add(does)
            names.append(name)
    return tuple(names)


def build_fusion(
    name: str,
    shapes: Mapping[str, tuple[int, int]],
    *,
    sigma: float = 0.2,
    width: int | None = None,
    align: Align = "relu",
    dropout: float = 0.5,
) -> Fusion:
    """The fusion ``name`` over views of these shapes, as a module.

    ``shapes``: view -> ``(L, D)``; views that the fusion does not use are passed over.
    ``sigma``, ``width`` (K), ``align`` and ``dropout`` matter to the co-occurrence ones only, see
    ``cooccurrence.CoOccurrence``. Raises ``ConfigError`` for an unknown name, a view that is
    missing and a value that makes no sense.
    """
    import importlib

    if name not in FUSIONS:
        raise ConfigError(f"unknown fusion {name!r}: expected one of {', '.join(FUSIONS)}")
    spec = FUSIONS[name]
    missing = spec.missing(shapes)
    if missing:
        raise ConfigError(
            f"fusion {name!r} needs the view(s) {', '.join(missing)}: "
            f"got {', '.join(shapes) or 'none'}"
        )
    for view, shape in shapes.items():
        if len(shape) != 2 or min(shape) < 1:
            raise ConfigError(
                f"view {view!r} has the shape {tuple(shape)}: expected (depths, width), both >= 1"
            )
    module, attribute = spec.module.split(":")
    made: Fusion = getattr(importlib.import_module(module), attribute)(
        name, spec, shapes, sigma=sigma, width=width, align=align, dropout=dropout
    )
    return made
