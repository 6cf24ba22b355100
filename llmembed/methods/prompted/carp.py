"""``carp``: clue-and-reasoning prompting (PAPERS: IO prompting and CARP, section 5).

Each demonstration shows a training text, the clues in it, the reasoning from them, and its label;
clues and reasoning were asked of the same model once, with the gold label in sight. The model then
works out the new text in the same way, several times, and the rounds vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmembed.contract import Examples, Reporter, Runtime, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.methods.demonstrations import Kind, gather
from llmembed.methods.prompted.base import Prompted
from llmembed.methods.prompted.carp_classifier import TEMPLATES, CarpClassifier, Worked
from llmembed.methods.prompted.rationales import Rationales
from llmembed.methods.prompted.voting import Rounds

SHOWN = 16
"""Demonstrations a prompt shows, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Carp(Prompted):
    """Makes ``CarpClassifier``; nothing is trained.

    ``k`` demonstrations, the ``nearest`` in ``view`` or ``random`` ones; with ``k`` 0 it is CARP
    without demonstrations, which asks for no rationales. ``templates``: variant -> a file of one's
    own. See ``Prompted`` for the others.
    """

    k: int = SHOWN
    demonstrations: Kind = "nearest"
    rounds: Rounds = field(default_factory=Rounds)
    templates: Mapping[str, str] = field(default_factory=dict)
    max_answer_tokens: int = 384
    max_rationale_tokens: int = 192
    name: str = "carp"

    def __post_init__(self) -> None:
        for name in self.templates:
            if name not in TEMPLATES:
                known = ", ".join(TEMPLATES)
                raise ConfigError(f"carp has no template {name!r}; it has {known}")

    @property
    def deterministic(self) -> bool:
        """Whether another seed changes nothing."""
        drawn = self.demonstrations == "random" and self.k > 0
        return not drawn and self.rounds.temperature == 0 and self.invalid.policy != "retry"

    @property
    def settings(self) -> dict[str, Any]:
        """What the leaderboard shows of the method."""
        return {
            **self.shared_settings,
            "k": self.k,
            "demonstrations": self.demonstrations if self.k else "none",
            "rounds": self.rounds,
            "templates": self.templates,
            "max_answer_tokens": self.max_answer_tokens,
            "max_rationale_tokens": self.max_rationale_tokens,
        }

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> CarpClassifier:
        for task in tasks:
            if task.kind != "single":
                raise UnsupportedError(
                    f"method 'carp' works out one label a text, so it can't do task {task.name!r} "
                    f"of kind {task.kind!r}; leave it out with data.tasks=[…]"
                )
        worked = tuple(self._worked(task) for task in tasks)
        demonstrations, usage = gather(
            self.demonstrations, self.k, tasks, train, view=self.view, seed=self.seed,
            runtime=runtime,
        )  # fmt: skip
        return CarpClassifier(
            tasks=tuple(tasks),
            generator=self.generator,
            worked=worked,
            demonstrations=demonstrations,
            extraction=usage,
            rounds=self.rounds,
            invalid=self.invalid,
            max_answer_tokens=self.max_answer_tokens,
            seed=self.seed,
        )

    def _worked(self, task: Task) -> Worked:
        own = {name: v for name, v in self.verbaliser.items() if name == task.name}
        ask = replace(self, verbaliser=own).question
        clues, reasoning, answer = (ask([task], n, self.templates.get(n)) for n in TEMPLATES)
        rationales = Rationales(
            generator=self.generator,
            clues=clues,
            reasoning=reasoning,
            max_tokens=self.max_rationale_tokens,
        )
        return Worked(answer=answer, rationales=rationales)
