"""A classifier that asks the causal model that was fine-tuned to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from llmembed.backbones import best_dtype
from llmembed.backbones.quantising import BITS_HELD, Bits
from llmembed.backbones.weights import check_location
from llmembed.contract import Prediction, Runtime, Task, Usage
from llmembed.finetuning.places import ADAPTER, Source
from llmembed.generation.local import LocalGenerator
from llmembed.methods import saved
from llmembed.methods.demonstrations import Demonstrations
from llmembed.methods.finetuned.model_folder import InModelFolder, ModelFolder
from llmembed.methods.prompt_classifier import PromptClassifier
from llmembed.prompts.messages import Message
from llmembed.prompts.question import Question


@dataclass(frozen=True, kw_only=True)
class DecoderClassifier(InModelFolder):
    """``decision``: answers are read as written, or each label is scored as the whole answer.
    ``context``: tokens of prompt and answer together, as in training. ``dtype`` bfloat16 is
    followed where the device that answers computes in it. ``base``: the model that the adapters in
    ``model`` belong on, which is referred to and never copied, and ``quantise`` the bits in which
    it is read; None where ``model`` is whole. ``chosen``: what validation chose."""

    method: ClassVar[str] = "decoder"
    tasks: tuple[Task, ...]
    model: ModelFolder
    question: Question
    demonstrations: Demonstrations
    context: int
    max_answer_tokens: int
    dtype: Literal["float32", "bfloat16"]
    decision: Literal["generate", "score"]
    fit_usage: Usage
    parameters_trained: int
    chosen: Mapping[str, Any]
    base: Source | None = None
    quantise: Bits | None = None
    fit_notes: tuple[str, ...] = ()
    _made: dict[str, PromptClassifier] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def _asks(self) -> PromptClassifier:
        if "asks" not in self._made:
            if self.base is None:
                generator = LocalGenerator(model=str(self.model.path), dtype=self.dtype)
            else:
                generator = LocalGenerator(
                    model=self.base.folder(),
                    revision=self.base.revision,
                    dtype=self.dtype,
                    adapter=str(self.model.path / ADAPTER),
                    quantise=self.quantise,
                )
            generator.spec = replace(
                generator.spec, context=self.context, scores_end=True, or_float32=True
            )
            self._made["asks"] = PromptClassifier(
                tasks=self.tasks,
                generator=generator,
                question=self.question,
                demonstrations=self.demonstrations,
                fit_usage=self.fit_usage,
                decision=self.decision,
                max_answer_tokens=self.max_answer_tokens,
            )
        return self._made["asks"]

    @property
    def memory_bytes(self) -> int:
        """What the model takes where it answers, with the base that adapters belong on."""
        if self.base is None:
            return self.model.bytes
        bits = 16.0 if "bfloat16" == self.dtype == best_dtype() else 32.0
        if self.quantise is not None:
            bits = BITS_HELD[self.quantise]
        return self.model.bytes + int(self.base.parameters * bits / 8)

    @property
    def predict_usage(self) -> Usage:
        """What the last ``predict`` took, on all actors together."""
        return self._asks.predict_usage

    @property
    def notes(self) -> tuple[str, ...]:
        """How it was trained, and what was cut, repaired or unreadable in the last ``predict``."""
        return (*self.fit_notes, *self._asks.notes)

    def release(self) -> None:
        """Give back what the model holds in this process; it is loaded again when next asked."""
        if "asks" in self._made:
            generator: Any = self._made["asks"].generator
            generator.release()

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        return self._asks.predict(texts, runtime)

    def save(self, folder: Path) -> None:
        """``folder``/model is as ``save_pretrained`` leaves it, with its tokenizer; with a ``base``
        it holds the adapters in peft's form, and the manifest says where the base is."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.copy_to(folder / "model")
        self.demonstrations.save(folder)
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={
                "question": self.question.to_json(),
                "context": self.context,
                "max_answer_tokens": self.max_answer_tokens,
                "dtype": self.dtype,
                "decision": self.decision,
                "parameters_trained": self.parameters_trained,
                "chosen": dict(self.chosen),
                "base": None if self.base is None else self.base.to_json(),
                "quantise": self.quantise,
            },
            arrays=self.demonstrations.arrays(),
        )

    @classmethod
    def load(cls, folder: Path) -> DecoderClassifier:
        tasks, usage, settings, arrays = saved.read(folder)
        question = Question.from_json(tasks, settings.pop("question"))
        base = settings.pop("base", None)
        if base is not None and base["weights_sha256"] is None:
            check_location(base["location"], base["revision"])
        loaded = cls(
            tasks=tasks,
            model=ModelFolder(path=folder / "model"),
            question=question,
            demonstrations=Demonstrations.load(folder, arrays),
            fit_usage=usage,
            base=None if base is None else Source(**base),
            **settings,
        )
        # Who loads from a folder that is soon gone (a worker's, the registry's) still gets answers.
        generator: Any = loaded._asks.generator
        _ = generator.model
        generator.count_tokens([(Message(role="user", content="any"),)])
        return loaded
