"""``--dry-run``: what asking a language model would take, before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmembed.contract import Silent
from llmembed.errors import ConfigError
from llmembed.experiment import Experiment
from llmembed.pipelines.console import console, say_corpus, write_json
from llmembed.pipelines.corpus import make_corpus
from llmembed.pipelines.generators import default_prices
from llmembed.pipelines.judging import judged
from llmembed.pipelines.methods import Assembler
from llmembed.pipelines.runtime import make_runtime

if TYPE_CHECKING:
    from llmembed.contract import Classifier, Runtime
    from llmembed.generation.estimate import Estimate
    from llmembed.metering import Prices


def estimate(
    experiment: Experiment, *, method: str | None = None, json_path: str | None = None
) -> list[dict[str, Any]]:
    """Print and return what each method that asks would take for all validation and test texts.

    Texts are embedded where nearest demonstrations need it; an endpoint is asked nothing, a local
    model answers a few prompts, which the cache keeps for the run itself. All figures are
    estimates, those of one seed; a method that asks what an earlier one asked finds it cached.

    Raises:
        ConfigError: no method of the experiment asks a language model.
    """
    from llmembed.metering import Prices

    asking = [
        name
        for name, settings in experiment.methods.items()
        if settings.generators_asked and method in (None, name)
    ]
    if not asking:
        raise ConfigError(
            "--dry-run: no method here asks a language model; see `llmembed recipes prompting`"
        )
    out = console()
    if (words := default_prices(experiment, asking)) is not None:
        out.print(words, style="yellow", soft_wrap=True)
    prices = Prices(**experiment.prices.model_dump())
    only = {name: experiment.methods[name] for name in asking}
    assembler = Assembler(experiment.model_copy(update={"methods": only}))
    found: list[dict[str, Any]] = []
    with make_runtime(**experiment.runtime.model_dump()) as runtime:
        corpus = make_corpus(experiment.data, runtime.files)
        corpus = judged(corpus, experiment.metric, experiment.costs)
        say_corpus(out, corpus)
        texts = [*corpus.valid.texts, *(corpus.test.texts if corpus.test else ())]
        for name in asking:
            made = assembler.method(name)
            classifier = made.fit(corpus.tasks, corpus.train, corpus.valid, runtime, Silent())
            parts = _parts(classifier, texts, runtime, prices)
            out.print(f"[bold]{name}[/], {len(texts):,} texts, one seed; estimates:")
            for what, part in parts.items():
                out.print(f"  {what}: " + "; ".join(part.lines()), markup=False)
            found.append({"method": name, "parts": {w: p.to_json() for w, p in parts.items()}})
        usd = sum(part["usd"] for each in found for part in each["parts"].values())
        out.print(f"together about {usd:.4g} USD a seed", markup=False)
    write_json(json_path, found)
    return found


def _parts(
    classifier: Classifier, texts: list[str], runtime: Runtime, prices: Prices
) -> dict[str, Estimate]:
    """Estimates by what is asked; rounds of the same question are added up."""
    from llmembed.generation import estimate_scores
    from llmembed.generation.estimate import estimate as estimated

    parts: dict[str, Estimate] = {}
    generator: Any = classifier.generator  # type: ignore[attr-defined]
    for planned in classifier.plan(texts, runtime):  # type: ignore[attr-defined]
        if not planned.prompts:
            continue
        if planned.candidates:
            one = estimate_scores(
                generator, planned.prompts, planned.candidates, prices, runtime=runtime
            )
        else:
            one = estimated(generator, planned.prompts, planned.sampling, prices, runtime=runtime)
        before = parts.get(planned.what)
        parts[planned.what] = one if before is None else _sum(before, one)
    return parts


def _sum(a: Estimate, b: Estimate) -> Estimate:
    known = a.seconds is not None and b.seconds is not None
    return replace(
        a,
        calls=a.calls + b.calls,
        cached=a.cached + b.cached,
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        completion_tokens=a.completion_tokens + b.completion_tokens,
        usd=a.usd + b.usd,
        seconds=(a.seconds or 0) + (b.seconds or 0) if known else None,
        kwh=(a.kwh or 0) + (b.kwh or 0) if known else None,
    )
