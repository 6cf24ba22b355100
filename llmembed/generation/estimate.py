"""What asking would take, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from llmembed.contract import Runtime, Usage
from llmembed.errors import UnsupportedError
from llmembed.generation.building import DescribedGenerator
from llmembed.generation.endpoint import EndpointGenerator
from llmembed.generation.local import LocalGenerator
from llmembed.generation.request import Generator, Sampling
from llmembed.metering import Prices
from llmembed.metering.prices import JOULES_PER_KWH
from llmembed.prompts import Prompt

SAMPLE = 64
TIMED = 4

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What ``calls`` answers, or scored labels, that the cache does not hold would take; all
    figures are estimates.

    ``prompt_tokens``: from a sample of ``sampled`` prompts; ``counts_exactly``: whether by the
    model's own tokeniser, else too many rather than too few. ``completion_tokens``: if every
    answer is as long as it may be. ``usd``: by the prices given; of a local model for its energy.
    ``seconds``, ``kwh``: of a local model, from ``timed`` prompts really answered here; None for an
    endpoint.
    """

    name: str
    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    usd: float
    seconds: float | None
    kwh: float | None
    sampled: int
    timed: int
    counts_exactly: bool
    machinery_only: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For the terminal, one figure a line."""
        exact = "" if self.counts_exactly else ", over-estimated: the tokeniser is not known"
        said = [
            f"{self.name}: {self.calls} calls ({self.cached} in the cache already)",
            f"prompt tokens: about {self.prompt_tokens} (from {self.sampled} prompts{exact})",
            f"answer tokens: at most {self.completion_tokens}",
        ]
        if self.seconds is not None and self.kwh is not None:
            said += [
                f"seconds of one worker: about {self.seconds:.0f} ({self.timed} answers timed "
                "here; loading the model is not in it)",
                f"energy: about {self.kwh:.3g} kWh, {self.usd:.3g} USD",
            ]
        else:
            said.append(f"cost: at most about {self.usd:.4g} USD")
        if self.machinery_only:
            said.append(f"machinery only: {self.machinery_only}")
        return said


def estimate(
    generator: Generator,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    prices: Prices | None = None,
    *,
    sample: int = SAMPLE,
    timed: int = TIMED,
    runtime: Runtime | None = None,
) -> Estimate:
    """What ``generator.generate(prompts, sampling)`` would take. Raises ``UnsupportedError`` for a
    generator that is none of this room's.

    An endpoint is asked nothing. A local model answers ``timed`` prompts, which the cache keeps
    for the run itself; with a ``runtime`` on its workers. ``prices``: by default the generator's
    own, or the paper's. What was ``used`` before is forgotten: ask for that first.
    """
    made = _of_this_room(generator)
    missing = made.missing(prompts, sampling, runtime)
    some = _spread(missing, sample)
    share = len(missing) / len(some) if some else 0.0
    asked = Usage(
        prompt_tokens=round(sum(made.count_tokens(some)) * share),
        completion_tokens=len(missing) * sampling.max_tokens,
        calls=len(missing),
    )
    few = [] if isinstance(made, EndpointGenerator) else _spread(missing, timed)
    made.used()
    if few:
        made.generate(few, sampling, runtime)
    took = made.used().scaled(len(missing) / len(few)) if few else Usage()
    cached = len({*prompts}) - len(missing)
    return _estimate(made, asked, took, prices, cached=cached, sampled=len(some), timed=len(few))


def estimate_scores(
    generator: Generator,
    prompts: Sequence[Prompt],
    candidates: Sequence[str],
    prices: Prices | None = None,
    *,
    sample: int = SAMPLE,
    timed: int = TIMED,
    runtime: Runtime | None = None,
) -> Estimate:
    """What ``generator.score(prompts, candidates)`` would take; otherwise as ``estimate``.

    A call is one candidate scored after one prompt: an endpoint is sent, and bills, the prompt with
    each of them; a local model reads it once for all."""
    made = _of_this_room(generator)
    missing = made.missing_scores(prompts, candidates)
    some = _spread(missing, sample)
    share = len(missing) / len(some) if some else 0.0
    counted = sum((made.scoring_tokens(*each) for each in some), Usage())
    asked = Usage(
        prompt_tokens=round((counted.tokens + counted.prompt_tokens) * share),
        completion_tokens=round(counted.completion_tokens * share),
        calls=sum(len(names) for _, names in missing),
    )
    few = [] if isinstance(made, EndpointGenerator) else _spread(missing, timed)
    made.used()
    if few:
        made.score([prompt for prompt, _ in few], candidates, runtime)
    took = made.used().scaled(len(missing) / len(few)) if few else Usage()
    cached = len({*prompts}) * len({*candidates}) - asked.calls
    return _estimate(made, asked, took, prices, cached=cached, sampled=len(some), timed=len(few))


def _of_this_room(generator: Generator) -> EndpointGenerator | LocalGenerator:
    if isinstance(generator, DescribedGenerator):
        generator = generator.made()
    if not isinstance(generator, (EndpointGenerator, LocalGenerator)):
        raise UnsupportedError(f"what {generator.name} takes can't be estimated")
    return generator


def _estimate(
    generator: EndpointGenerator | LocalGenerator,
    asked: Usage,
    took: Usage,
    prices: Prices | None,
    *,
    cached: int,
    sampled: int,
    timed: int,
) -> Estimate:
    """``took``: what a local model takes for all of it, by those ``timed``."""
    local = isinstance(generator, LocalGenerator)
    if isinstance(generator, EndpointGenerator):
        prices = prices or generator.prices
    return Estimate(
        name=generator.name,
        calls=asked.calls,
        cached=cached,
        prompt_tokens=asked.prompt_tokens,
        completion_tokens=asked.completion_tokens,
        usd=(prices or Prices()).cost(took if local else asked),
        seconds=took.seconds if local else None,
        kwh=took.energy_joules / JOULES_PER_KWH if local else None,
        sampled=sampled,
        timed=timed,
        counts_exactly=generator.counts_exactly,
        machinery_only=generator.machinery_only,
    )


def _spread(items: Sequence[T], count: int) -> list[T]:
    """``count`` of them from beginning to end, or all where there are fewer."""
    if len(items) <= count:
        return [*items]
    return [items[i * len(items) // count] for i in range(count)]
