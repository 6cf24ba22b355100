"""``decoder``: a causal language model fine-tuned to answer prompts.

The multi-task fine-tuning paper's decoders (2025): full fine-tuning with the loss on the answer
alone; one task, or several consolidated into one JSON answer. Scoring the labels instead of reading
what is written, LoRA and prompts without instructions are ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmembed.backbones.quantising import check_installed
from llmembed.contract import Examples, Reporter, Runtime, Task
from llmembed.errors import ConfigError
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.places import Source, source_of, untrained_reason
from llmembed.finetuning.worker import DecoderWork
from llmembed.methods.demonstrations import gather
from llmembed.methods.finetuned.base import Finetuned, Spread, Trains, finetune
from llmembed.methods.finetuned.decoder_classifier import DecoderClassifier
from llmembed.methods.finetuned.decoder_rows import AnswerEncoder
from llmembed.methods.finetuned.model_folder import check_reach
from llmembed.metrics import metric_of, needs_scores
from llmembed.metrics.measuring import value
from llmembed.prompts.question import Question, make_question, variant_of
from llmembed.prompts.templates import Template, Variant

CUES: dict[Variant, str] = {"label": "Label:", "slots": "Slots:", "tasks": "Output:"}
UNTRAINED_FILE = "llmembed-untrained.json"


@dataclass(frozen=True, kw_only=True)
class Decoder(Trains):
    """Fits ``DecoderClassifier``.

    ``model``: hub id or folder of a causal model. ``shots``: demonstrations in every prompt, drawn
    by the seed. ``instructions``: False leaves only the text between its markers and the cue, since
    what training teaches need not be said: shorter prompts, fewer tokens. ``decision``: the answer
    is read as written, or each label scored as the whole answer; ``auto`` takes what is better on
    validation, for several tasks or words always what is written. ``benchmark``, ``verbaliser``,
    ``text_kind`` and ``template``: see ``Prompting``.
    """

    model: str
    revision: str | None = None
    shots: int = 0
    instructions: bool = True
    decision: Literal["auto", "generate", "score"] = "auto"
    training: FinetuneConfig = field(default_factory=FinetuneConfig.decoder)
    spread: Spread = field(default_factory=Spread)
    benchmark: str | None = None
    verbaliser: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    text_kind: str | None = None
    template: str | Path | None = None
    name: str = "decoder"

    def __post_init__(self) -> None:
        if self.decision not in ("auto", "generate", "score"):
            raise ConfigError(
                f"unknown decision {self.decision!r}; known are auto, generate, score"
            )
        for name in ("class_weights", "focal"):
            if getattr(self.training, name):
                raise ConfigError(
                    f"training.{name} is for encoders: a decoder's loss is over the tokens of an "
                    "answer, not over classes; leave it out"
                )
        if not self.instructions and (self.shots or self.template is not None):
            raise ConfigError("instructions: false leaves no place for shots or a template")

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, seed apart."""
        return {
            "model": self.model,
            "shots": self.shots,
            "instructions": self.instructions,
            "decision": self.decision,
            "benchmark": self.benchmark,
            "template": None if self.template is None else str(self.template),
            **self.training_settings,
        }

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> DecoderClassifier:
        question = self.question(tasks)
        if self.decision == "score" and question.template.variant != "label":
            raise ConfigError(
                "decision: score is for one task of one label; several tasks or words are answered "
                "as written, decision: generate"
            )
        check_reach(runtime)
        source = source_of(self.model, revision=self.revision, causal=True)
        config = self.training
        if config.quantise is not None:
            check_installed(config.quantise)
        context = min(config.max_tokens, source.context or config.max_tokens)
        shown, usage = gather(
            "random" if self.shots else "none",
            self.shots,
            tasks,
            train,
            view=None,
            seed=config.seed,
            runtime=runtime,
        )
        encoder = AnswerEncoder(
            location=source.folder(),
            revision=source.revision,
            context=context,
            question=question,
            demonstrations=shown,
        )
        longest = encoder.longest_answer(train, valid)
        rows, cut = encoder.rows(train, longest)
        valid_rows, _ = encoder.rows(valid, longest)
        done = finetune(
            DecoderWork(source=source, train=rows, valid=valid_rows, config=config),
            name=self.name,
            source=source,
            config=config,
            spread=self.spread,
            runtime=runtime,
            reporter=reporter,
        )
        self._mark(done, source)
        notes = [done.why] + ([f"{cut:,} training texts were cut to fit"] if cut else [])
        if not config.merges:
            bits = "" if config.quantise is None else f" read in {config.quantise} bit"
            notes.append(f"adapters alone, answering over {source.label}{bits}")
        fitted = DecoderClassifier(
            tasks=tuple(tasks),
            model=done.model,
            question=question,
            demonstrations=shown,
            context=context,
            max_answer_tokens=longest,
            dtype="bfloat16" if done.bf16 else "float32",
            decision="score" if self.decision == "score" else "generate",
            fit_usage=usage + done.usage,
            parameters_trained=done.parameters_trained,
            chosen={"step": done.best_step},
            base=None if config.merges else source,
            quantise=config.quantise,
            fit_notes=tuple(notes),
        )
        if self.decision != "auto" or question.template.variant != "label":
            return fitted
        return self._decided(fitted, valid, runtime, reporter, done.best_step)

    def question(self, tasks: Sequence[Task]) -> Question:
        """What is asked of every text."""
        variant = variant_of(tasks)
        question = make_question(
            tasks,
            variant,
            template=self.template,
            benchmark=self.benchmark,
            verbaliser=self.verbaliser,
            text_kind=self.text_kind,
        )
        if self.instructions:
            return question
        user = f"<<< text\n{{text}}\n>>> text\n\n{CUES[variant]}"
        bare = Template(variant=variant, system="", user=user, stop=question.template.stop)
        return replace(question, template=bare)

    def _mark(self, done: Finetuned, source: Source) -> None:
        """What is said of the base model's figures holds for the new one's too."""
        reason = untrained_reason(source.location)
        if reason is not None:
            told = json.dumps({"reason": reason})
            (done.model.path / UNTRAINED_FILE).write_text(told, encoding="utf-8")

    def _decided(
        self,
        fitted: DecoderClassifier,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
        step: int,
    ) -> DecoderClassifier:
        """Both decisions on validation, both reported; the better one under the task's metric is
        taken. What is written has no scores: where the metric needs them, labels are scored."""
        (task,) = fitted.tasks
        truth = valid.labels[task.name]
        metric = metric_of(task)
        found: dict[str, float] = {}
        usage = fitted.fit_usage
        both: tuple[Literal["generate", "score"], ...] = ("generate", "score")
        for decision in both[needs_scores(metric) :]:
            tried = replace(fitted, decision=decision)
            found[decision] = value(task, truth, tried.predict(valid.texts, runtime)[task.name])
            usage += tried.predict_usage
        reporter.report(
            {f"valid/{task.name}/{metric}_{name}": each for name, each in found.items()},
            step=step,
        )
        better: Literal["generate", "score"] = (
            "generate" if found.get("generate", -math.inf) > found["score"] else "score"
        )
        told = {**fitted.chosen, "decision": better, "valid_accuracy": found}
        return replace(fitted, decision=better, chosen=told, fit_usage=usage)
