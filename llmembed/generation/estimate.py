"""What asking would take, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmembed.contract import Runtime, Usage
from llmembed.errors import UnsupportedError
from llmembed.generation.building import DescribedGenerator
from llmembed.generation.endpoint import EndpointGenerator
from llmembed.generation.local import LocalGenerator
from llmembed.generation.request import Generator, Prompt, Sampling
from llmembed.metering import Prices
from llmembed.metering.prices import JOULES_PER_KWH

SAMPLE = 64
TIMED = 4


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What ``calls`` answers that the cache does not hold would take; all figures are estimates.

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
            f"{self.name}: {self.calls} calls ({self.cached} answers in the cache already)",
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
    if isinstance(generator, DescribedGenerator):
        generator = generator.made()
    if not isinstance(generator, (EndpointGenerator, LocalGenerator)):
        raise UnsupportedError(f"what {generator.name} takes can't be estimated")
    missing = generator.missing(prompts, sampling)
    some = _spread(missing, sample)
    counted = generator.count_tokens(some)
    prompt_tokens = round(sum(counted) / len(some) * len(missing)) if some else 0
    completion_tokens = len(missing) * sampling.max_tokens
    seconds = kwh = None
    if isinstance(generator, EndpointGenerator):
        prices = prices or generator.prices
        few: list[Prompt] = []
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    else:
        few = _spread(missing, timed)
        generator.used()
        if few:
            generator.generate(few, sampling, runtime)
        took = generator.used()
        usage = took.scaled(len(missing) / len(few)) if few else Usage()
        seconds, kwh = usage.seconds, usage.energy_joules / JOULES_PER_KWH
    return Estimate(
        name=generator.name,
        calls=len(missing),
        cached=len({*prompts}) - len(missing),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        usd=(prices or Prices()).cost(usage),
        seconds=seconds,
        kwh=kwh,
        sampled=len(some),
        timed=len(few),
        counts_exactly=generator.counts_exactly,
        machinery_only=generator.machinery_only,
    )


def _spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """``count`` of them from beginning to end, or all where there are fewer."""
    if len(prompts) <= count:
        return [*prompts]
    return [prompts[i * len(prompts) // count] for i in range(count)]
