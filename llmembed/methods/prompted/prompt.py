"""``prompt``: a language model is asked for the label, with or without demonstrations; nothing is
trained (PAPERS: MT's prompts without fine-tuning, CARP's IO baseline)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from llmembed.backbones import View
from llmembed.contract import Examples, Reporter, Runtime, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.generation import Generator
from llmembed.methods.asked import InvalidAnswers, generator_settings
from llmembed.methods.demonstrations import Kind, gather
from llmembed.methods.prompt_classifier import PromptClassifier
from llmembed.prompts.question import make_question, variant_of
from llmembed.prompts.templates import Variant

Style = Literal["io", "zero_shot", "k_shot"]
SHOWN: dict[Style, int] = {"io": 16, "zero_shot": 0, "k_shot": 5}
"""Style -> how many demonstrations it shows unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """Makes ``PromptClassifier``; nothing is trained and nothing asked of the model.

    ``style``: ``zero_shot``; ``k_shot``, instructions and ``k`` (5) demonstrations; ``io``, hardly
    any instruction and ``k`` (16) demonstrations. ``demonstrations``: ``random`` (balanced over
    classes, drawn by the seed) or ``nearest`` (in ``view``), the default where there is a view.
    ``benchmark`` names the data set whose readable label names and sort of text are used;
    ``verbaliser`` (task -> label -> name) and ``text_kind`` go before it. ``template``: a file of
    one's own. ``max_answer_tokens``: 32 for one label, 512 where words are tagged, else 32 a task.
    """

    classifier: ClassVar[type[PromptClassifier]] = PromptClassifier
    generator: Generator
    style: Style = "k_shot"
    k: int | None = None
    demonstrations: Kind | None = None
    view: View | None = None
    decision: Literal["generate", "score"] = "generate"
    calibrate: bool = False
    invalid: InvalidAnswers = field(default_factory=InvalidAnswers)
    benchmark: str | None = None
    verbaliser: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    text_kind: str | None = None
    template: str | Path | None = None
    max_answer_tokens: int | None = None
    seed: int = 0
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
    def machinery_only(self) -> bool:
        return self.generator.machinery_only is not None

    @property
    def deterministic(self) -> bool:
        """Whether another seed changes nothing."""
        return self.shown[0] != "random" and self.invalid.policy != "retry"

    @property
    def settings(self) -> dict[str, Any]:
        """What the leaderboard shows of the method."""
        kind, k = self.shown
        return {
            "generator": generator_settings(self.generator),
            "style": self.style,
            "demonstrations": kind,
            "k": k,
            "view": self.view,
            "decision": self.decision,
            "calibrate": self.calibrate,
            "invalid": self.invalid.to_json(),
            "benchmark": self.benchmark,
            "verbaliser": self.verbaliser,
            "text_kind": self.text_kind,
            "template": None if self.template is None else str(self.template),
            "max_answer_tokens": self.max_answer_tokens,
        }

    def seeded(self, seed: int) -> Prompting:
        return replace(self, seed=seed)

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
        question = make_question(
            tasks,
            variant,
            template=self.template,
            benchmark=self.benchmark,
            verbaliser=self.verbaliser,
            text_kind=self.text_kind,
        )
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
