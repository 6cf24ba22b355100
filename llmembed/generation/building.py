"""From a plain description to a generator, made when it is first needed.

::

    build_generator({"kind": "endpoint", "model": "m", "base_url": "http://host/v1"})
    build_generator({"kind": "local", "model": "meta-llama/Llama-2-7b-hf"})

A description names the environment variable that holds a key, never the key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmembed.contract import Runtime, Usage
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.generation.permitted import permitted
from llmembed.generation.request import Answer, Generator, Sampling
from llmembed.permissions import is_loading
from llmembed.prompts import Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llmembed.generation.budget import Budget

KINDS: dict[str, tuple[str, ...]] = {
    "endpoint": (
        "model",
        "base_url",
        "api_key_env",
        "concurrency",
        "timeout_seconds",
        "retries",
        "give_up_after",
        "patience_seconds",
        "cache",
        "refresh",
        "budget_usd",
        "budget_tokens",
        "prices",
        "context",
        "machinery_only",
        "tokenizer",
        "longest_answer_field",
        "scores",
    ),
    "local": (
        "model",
        "revision",
        "dtype",
        "device",
        "batch_tokens",
        "chunk_prompts",
        "cache",
        "refresh",
        "machinery_only",
        "backend",
        "adapter",
        "quantise",
    ),
}
"""Kind of generator -> what its description may hold."""

OF_A_RUN = ("cache", "refresh", "budget_usd", "budget_tokens", "prices")
"""What belongs to one run on one machine and is not saved with a classifier."""


def build_generator(settings: Mapping[str, Any], *, budget: Budget | None = None) -> Generator:
    """The generator that ``settings`` describe: ``kind``, ``model`` and what else its kind takes.

    ``budget``: one that several generators share, in place of ``budget_usd`` and
    ``budget_tokens``. Nothing is loaded and no connection made before the generator is first
    asked. Raises ``ConfigError``; for what a saved classifier says (``permissions.loading``)
    ``ModelError`` where it was not allowed.
    """
    kind = settings.get("kind", "endpoint" if "base_url" in settings else "local")
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of generator {kind!r}; known are {', '.join(KINDS)}")
    for name, value in settings.items():
        if name in ("api_key", "key", "token"):
            raise ConfigError(
                f"a generator's description holds no {name}: put the key into an environment "
                "variable and name that in api_key_env"
            )
        if name != "kind" and name not in KINDS[kind]:
            near = difflib.get_close_matches(name, KINDS[kind], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {KINDS[kind]}"
            raise ConfigError(f"a generator of kind {kind!r} has no setting {name!r}{hint}")
        if name == "base_url" and (urlsplit(str(value)).username or urlsplit(str(value)).password):
            raise ConfigError(
                "base_url holds a user or password: name a key in api_key_env instead"
            )
    needed = ("model", "base_url") if kind == "endpoint" else ("model",)
    for name in needed:
        if not settings.get(name):
            raise ConfigError(f"a generator of kind {kind!r} needs {name}")
    described = {**settings, "kind": kind}
    if is_loading():
        described = permitted(described, OF_A_RUN)
    return DescribedGenerator(described, budget=budget)


def describe(generator: Generator) -> dict[str, Any]:
    """The description of which ``build_generator`` makes ``generator`` again, without what belongs
    to one run. Raises ``UnsupportedError`` for a generator that has none."""
    if isinstance(generator, DescribedGenerator):
        generator = generator.made()  # pinned: with its commit, folder and dtype
    if hasattr(generator, "to_json"):
        described: dict[str, Any] = generator.to_json()
        return {name: value for name, value in described.items() if name not in OF_A_RUN}
    kind = {"EndpointGenerator": "endpoint", "LocalGenerator": "local"}.get(
        type(generator).__name__
    )
    if kind is None:
        raise UnsupportedError(
            f"the generator {generator.name} can't be saved with a classifier: make it by "
            "build_generator, which keeps its description"
        )
    named = {name: getattr(generator, name, None) for name in KINDS[kind] if name not in OF_A_RUN}
    plain = {k: v for k, v in named.items() if isinstance(v, (str, int, float))}
    # None is not "not told": it says that no key is needed.
    key = {"api_key_env": named["api_key_env"]} if kind == "endpoint" else {}
    return {"kind": kind, **plain, **key}


class DescribedGenerator:
    """A generator that knows its description and is made when first asked."""

    def __init__(self, settings: Mapping[str, Any], *, budget: Budget | None = None) -> None:
        self._settings = dict(settings)
        self._budget = budget
        self._made: Generator | None = None

    def __repr__(self) -> str:
        return f"build_generator({self._settings!r})"

    def to_json(self) -> dict[str, Any]:
        return dict(self._settings)

    @property
    def cache(self) -> Any:
        """Where answers are kept, None where they are not."""
        return self._settings.get("cache")

    def __getstate__(self) -> dict[str, Any]:
        return {"_settings": self._settings, "_budget": None, "_made": None}

    def made(self) -> Generator:
        """The generator itself; nothing is loaded yet."""
        if self._made is None:
            self._made = _make(self._settings, self._budget)
        return self._made

    @property
    def name(self) -> str:
        return self.made().name

    @property
    def context(self) -> int | None:
        return self.made().context

    @property
    def machinery_only(self) -> str | None:
        return self.made().machinery_only

    @property
    def gives_scores(self) -> bool:
        return self.made().gives_scores

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        return self.made().count_tokens(prompts)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, runtime: Runtime | None = None
    ) -> list[Answer]:
        return self.made().generate(prompts, sampling, runtime)

    def score(
        self, prompts: Sequence[Prompt], candidates: Sequence[str], runtime: Runtime | None = None
    ) -> npt.NDArray[np.float32]:
        return self.made().score(prompts, candidates, runtime)

    def used(self) -> Usage:
        return self.made().used()

    def paid(self) -> Usage:
        return self.made().paid()


def _make(settings: Mapping[str, Any], budget: Budget | None) -> Generator:
    given = {k: v for k, v in settings.items() if k not in ("kind", *OF_A_RUN)}
    if settings.get("cache"):
        from llmembed.generation.cache import ResponseCache

        given["cache"] = ResponseCache(settings["cache"], refresh=bool(settings.get("refresh")))
    if settings["kind"] == "local":
        from llmembed.generation.local import LocalGenerator

        local: Generator = LocalGenerator(**given)
        return local
    from llmembed.generation.endpoint import EndpointGenerator
    from llmembed.metering import PRICES, Prices

    prices = settings.get("prices")
    if isinstance(prices, str):
        if prices not in PRICES:
            raise ConfigError(f"unknown price list {prices!r}; known are {', '.join(PRICES)}")
        prices = PRICES[prices]
    elif isinstance(prices, Mapping):
        prices = Prices(**prices)
    usd, tokens = settings.get("budget_usd"), settings.get("budget_tokens")
    if budget is None and (usd is not None or tokens is not None):
        from llmembed.generation.budget import Budget

        budget = Budget(usd=usd, tokens=tokens, prices=prices)
    for name, value in (("prices", prices), ("budget", budget)):
        if value is not None:
            given[name] = value
    endpoint: Generator = EndpointGenerator(**given)
    return endpoint
