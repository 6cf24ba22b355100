"""By which way a model is read: the fastest that gives what the model itself says.

Each way rests on how most models are laid out: blocks that return (B, T, D), nothing between them,
texts that do not see their neighbours. So when a backbone is made, two short rows of tokens go
through each way in turn, alone and together, and must come out as the model's own list of states
(``output_hidden_states``) gives them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from llmembed.backbones.batching import is_out_of_memory
from llmembed.backbones.spec import BackboneSpec
from llmembed.errors import ModelError, UnsupportedError, UserError

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}
"""Of a vector's length: well above rounding, of which kernels with and without a mask differ."""

Vectors = npt.NDArray[np.float32]


class Way(Protocol):
    """One way to read a model: ids, lengths -> float32 (B, R, D)."""

    def __call__(self, *inputs: Any) -> Any: ...

    def settle(self) -> None:
        """Chosen: give back what is not needed."""

    def remove(self) -> None:
        """Not chosen: leave the model as it was."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """``alone``: text by text, since texts read together change each other. ``why``: in one
    sentence, where the model is not read as most are."""

    way: Way
    alone: bool
    why: str | None = None


def choose(
    spec: BackboneSpec,
    listed: Way,
    makers: Sequence[Callable[[], Way]],
    run: Callable[[Way, bool], Vectors],
) -> Reading:
    """The first way that gives what ``listed``, the model's own list, does; the last resort is that
    one. ``run``: the probe's vectors (2, R, D), of its rows together or, where told so, alone.

    Raises ``UnsupportedError`` or ``ModelError`` where no way does.
    """
    try:
        wanted = run(listed, True)
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{spec.label} can't be run on a text: {_line(error)}") from error
    if not np.isfinite(wanted).all():
        raise ModelError(
            f"the backbone {spec.label} gave a vector that is not finite (NaN or infinite); "
            "try another dtype, for example float32"
        )
    # What no list holds: states before the final norm.
    told = [spec.post_norm or read.depth > 1 or read.pooling == "pooler" for read in spec.reads]
    same_padded = [read.pooling != "mean_padded" for read in spec.reads]
    why: str | None = None
    for make in [*makers, None]:
        if make is None and not spec.post_norm:
            break
        way = listed if make is None else make()
        try:
            alone = run(way, True)
            apart = _off(alone, wanted, told)
            if apart <= TOLERANCE[spec.dtype]:
                return _reading(spec, way, alone, run, same_padded, why)
            why = f"read as most models are, its vectors are off by {apart:.1%} of their length"
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            why = f"it can't be read as most models are ({_line(error)})"
        way.remove()
    raise UnsupportedError(
        f"{spec.label} can't be read: {why}, and its own list of states "
        + ("does not give the same twice" if spec.post_norm else "has none before its final norm")
    )


def _reading(
    spec: BackboneSpec,
    way: Way,
    alone: Vectors,
    run: Callable[[Way, bool], Vectors],
    compared: Sequence[bool],
    why: str | None,
) -> Reading:
    said = [f"by its own list of states, since {why}"] if why else []
    try:
        apart = _off(run(way, False), alone, compared)
        reason = f"texts read together change each other's vectors by {apart:.1%} of their length"
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        apart, reason = np.inf, f"it can't read texts together ({_line(error)})"
    one_by_one = apart > TOLERANCE[spec.dtype]
    if one_by_one:
        said.append(f"text by text, since {reason}")
    sentence = f"{spec.label} is read {' and '.join(said)}: this is slower" if said else None
    return Reading(way=way, alone=one_by_one, why=sentence)


def _off(found: Vectors, wanted: Vectors, compared: Sequence[bool]) -> float:
    """The largest length of a difference as a share of its vector's length, over the reads
    ``compared``."""
    rows = np.array(compared)
    difference = np.linalg.norm(found - wanted, axis=-1)
    length = np.maximum(np.linalg.norm(wanted, axis=-1), 1e-6)
    off = float((difference / length)[:, rows].max(initial=0.0))
    return off if np.isfinite(off) else float("inf")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]
