"""``prompt``: a language model is asked for the label, with or without demonstrations; nothing is
trained (PAPERS: MT's prompts without fine-tuning, CARP's IO baseline)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmembed.contract import Examples, Reporter, Runtime, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.methods.demonstrations import Kind, gather
from llmembed.methods.prompt_classifier import PromptClassifier
from llmembed.methods.prompted.base import Prompted
from llmembed.prompts.question import variant_of
from llmembed.prompts.templates import Variant

Style = Literal["io", "zero_shot", "k_shot"]
SHOWN: dict[Style, int] = {"io": 16, "zero_shot": 0, "k_shot": 5}
"""Style -> how many demonstrations it shows unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Prompting(Prompted):
    """Makes ``PromptClassifier``; nothing is trained and nothing asked of the model.

    ``style``: ``zero_shot``; ``k_shot``, instructions and ``k`` (5) demonstrations; ``io``, hardly
    any instruction and ``k`` (16) demonstrations. ``demonstrations``: ``random`` (balanced over
    classes, drawn by the seed) or ``nearest`` (in ``view``), the default where there is a view.
    ``template``: a file of one's own. ``max_answer_tokens``: 32 for one label, 512 where words are
    tagged, else 32 a task. See ``Prompted`` for the others.
    """

    style: Style = "k_shot"
    k: int | None = None
    demonstrations: Kind | None = None
    decision: Literal["generate", "score"] = "generate"
    calibrate: bool = False
    template: str | Path | None = None
    max_answer_tokens: int | None = None
    name: str = "prompt"

    def __post_init__(self) -> None:
        if self.style not in SHOWN:
            raise ConfigError(f"unknown style {self.style!r}; known are {', '.join(SHOWN)}")
        if self.decision not in ("generate", "score"):
            raise ConfigError(f"unknown decision {self.decision!r}; known are generate, score")
        if self.style == "zero_shot" and (self.k or self.demonstrations not in (None, "none")):
            raise ConfigError("style zero_shot shows no demonstrations; ask for k_shot")
        if self.calibrate and self.decision != "score":
            raise ConfigError("calibrate needs decision: score, since written answers have none")

    @property
    def shown(self) -> tuple[Kind, int]:
        """How demonstrations are chosen, and how many."""
        k = SHOWN[self.style] if self.k is None else self.k
        kind = self.demonstrations or ("random" if self.view is None else "nearest")
        return ("none", 0) if k == 0 or kind == "none" else (kind, k)

    @property
    def deterministic(self) -> bool:
        """Whether another seed changes nothing."""
        return self.shown[0] != "random" and self.invalid.policy != "retry"

    @property
    def settings(self) -> dict[str, Any]:
        """What the leaderboard shows of the method."""
        kind, k = self.shown
        return {
            **self.shared_settings,
            "style": self.style,
            "demonstrations": kind,
            "k": k,
            "decision": self.decision,
            "calibrate": self.calibrate,
            "template": None if self.template is None else str(self.template),
            "max_answer_tokens": self.max_answer_tokens,
        }

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> PromptClassifier:
        variant: Variant = variant_of(tasks)
        if self.decision == "score":
            if variant != "label":
                raise UnsupportedError(
                    f"labels are scored for one task of one label, not for "
                    f"{', '.join(task.name for task in tasks)}; set decision: generate"
                )
            if not self.generator.gives_scores:
                raise UnsupportedError(
                    f"{self.generator.name} tells no log-probabilities of given answers, so labels "
                    "can't be scored; set decision: generate"
                )
        variant = "io" if variant == "label" and self.style == "io" else variant
        question = self.question(tasks, variant, self.template)
        kind, k = self.shown
        demonstrations, usage = gather(
            kind, k, tasks, train, view=self.view, seed=self.seed, runtime=runtime
        )
        longest = 512 if any(task.kind == "tokens" for task in tasks) else 32 * len(tasks)
        return PromptClassifier(
            tasks=tuple(tasks),
            generator=self.generator,
            question=question,
            demonstrations=demonstrations,
            fit_usage=usage,
            decision=self.decision,
            calibrate=self.calibrate,
            invalid=self.invalid,
            max_answer_tokens=self.max_answer_tokens or longest,
            seed=self.seed,
        )
