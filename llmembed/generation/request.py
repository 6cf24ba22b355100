"""What a text generator is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmembed.contract import Runtime, Usage
from llmembed.prompts import Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


Finish = Literal["stop", "length", "refused", "failed"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the model writes. ``temperature`` 0 is greedy. ``stop``: words that end the answer and
    do not belong to it. ``seed`` tells the rounds of one prompt apart, also in the cache.
    ``logprobs``: ask for the log-probabilities of the tokens written."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 32
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "stop": list(self.stop)}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model wrote. ``finish``: ``stop`` (it ended, or a stop word came), ``length`` (cut
    at ``max_tokens``), ``refused`` (model or endpoint would not answer this prompt: a filter, a
    refusal, a prompt too long, a tool called instead) or ``failed`` (no answer after all
    tries); of the last two ``text`` is empty and ``reason`` says why. ``prompt_tokens`` and
    ``completion_tokens`` as the endpoint counted them (local: as the tokeniser does).
    ``logprobs``: (token text, log-probability) of each token written. ``cached``: read from the
    response cache, nothing was spent."""

    text: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[tuple[str, float], ...] | None = None
    cached: bool = False
    reason: str | None = None

    @property
    def lasting(self) -> bool:
        """Whether it may be kept for good: asking again would not be expected to give more."""
        return self.finish in ("stop", "length") and bool(self.text.strip())


class Generator(Protocol):
    """A causal language model that answers prompts: local (``generation.local``) or behind an
    OpenAI-compatible address (``generation.endpoint``)."""

    @property
    def name(self) -> str:
        """Model and revision, or model and host; no secrets."""
        ...

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together, where known."""
        ...

    @property
    def machinery_only(self) -> str | None:
        """Why figures of this generator say nothing of accuracy (an untrained model, a scripted
        server), or None."""
        ...

    @property
    def gives_scores(self) -> bool:
        """Whether ``score`` works."""
        ...

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt with its chat template; an estimate where the tokeniser is not
        known."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, runtime: Runtime | None = None
    ) -> list[Answer]:
        """One answer a prompt, in order. With a runtime local models run on its actors.

        Raises ``BudgetError`` before a budget would be exceeded; what was answered until then is
        in the cache."""
        ...

    def score(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[str],
        runtime: Runtime | None = None,
    ) -> npt.NDArray[np.float32]:
        """Log-probability (N, C) of each candidate as the whole answer to each prompt, summed over
        its tokens; NaN where no answer came, minus infinity where one was refused. Raises
        ``UnsupportedError`` where the model tells none."""
        ...

    def used(self) -> Usage:
        """What the answers given since the last call of ``used`` took. An answer read from the
        cache still bears what it once took, as a cached embedding does."""
        ...

    def paid(self) -> Usage:
        """What this process really spent so far: answers read from the cache cost nothing."""
        ...
