"""``predict`` with a classifier that asks a language model: what belongs to one run of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmembed.contract import Classifier
from llmembed.errors import ConfigError
from llmembed.permissions import Allowed, loading


def asked_by(classifier: Classifier) -> dict[str, Any] | None:
    """The description of the language model that ``classifier`` asks, None where it asks none."""
    generator = getattr(classifier, "generator", None)
    return None if generator is None else generator.to_json()


def asks_endpoint(classifier: Classifier) -> bool:
    """Whether its answers are called for, and paid by the call."""
    return (asked_by(classifier) or {}).get("kind") == "endpoint"


def load_for_run(
    folder: str | Path, of_a_run: Mapping[str, Any], allowed: Allowed | None = None
) -> Classifier:
    """The classifier of ``folder``, with what is ``allowed``; if it asks a language model, with
    ``of_a_run``: ``cache`` and, of an endpoint, ``budget_usd``, ``budget_tokens`` and ``prices``.
    """
    from llmembed.generation.building import build_generator
    from llmembed.methods import load

    classifier = load(folder, allowed)
    described = asked_by(classifier)
    if described is None or not of_a_run:
        return classifier
    generator = build_generator({**described, **of_a_run})
    with loading(allowed):
        with_it: Classifier = type(classifier).load(  # type: ignore[attr-defined]
            Path(folder), generator=generator
        )
    return with_it


def settings_of_a_run(
    classifier: Classifier,
    folder: Path,
    *,
    cache: Path,
    budget_usd: float | None,
    budget_tokens: int | None,
    token_prices: tuple[float, float] | None,
) -> tuple[dict[str, Any], str | None]:
    """What ``load_for_run`` takes, and a line to say where USD are counted by prices nobody set.
    Raises ``ConfigError`` for a limit that could not hold anything."""
    from llmembed.metering import Prices

    given = {"budget_usd": budget_usd, "budget_tokens": budget_tokens}
    limits = {name: value for name, value in given.items() if value is not None}
    if not asks_endpoint(classifier):
        if limits or token_prices:
            raise ConfigError(
                f"{folder} asks no endpoint, so there is nothing to pay: leave out --budget-usd, "
                "--budget-tokens and --token-prices"
            )
        return ({"cache": str(cache)} if asked_by(classifier) else {}), None
    for name, value in limits.items():
        if value <= 0:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if token_prices is not None and min(token_prices) < 0:
        raise ConfigError("--token-prices: expected two numbers, USD for 1000 tokens each")
    prices = Prices()
    if token_prices is not None:
        prompt, completion = token_prices
        prices = Prices(
            usd_per_1000_prompt_tokens=prompt, usd_per_1000_completion_tokens=completion
        )
    proviso = None
    if budget_usd is not None and token_prices is None:
        proviso = (
            "--budget-usd: USD are counted at the default of "
            f"{prices.usd_per_1000_prompt_tokens:g} for 1000 tokens; set what your endpoint "
            "charges with --token-prices"
        )
    return {"cache": str(cache), "prices": prices, **limits}, proviso
