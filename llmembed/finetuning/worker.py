"""What each worker of ``Runtime.train`` runs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.contract import Examples, Task, WorkerContext
from llmembed.finetuning.answer_rows import AnswerRows
from llmembed.finetuning.config import FinetuneConfig, computes_bf16
from llmembed.finetuning.places import Source, no_gpu_is_fine

if TYPE_CHECKING:
    import torch

    from llmembed.finetuning.heads import Pooling
    from llmembed.finetuning.rows import Rows


@dataclass(frozen=True, kw_only=True)
class EncoderWork:
    """Fine-tunes an encoder with a head for each of ``tasks``."""

    source: Source
    tasks: tuple[Task, ...]
    train: Examples
    valid: Examples
    config: FinetuneConfig
    pooling: Pooling = "mean"

    def digest(self) -> str:
        """The same for the same training, whoever asks."""
        told: list[Any] = [self.source.label, self.pooling, self.config.to_json()]
        told += [task.to_json() for task in self.tasks]
        for examples in (self.train, self.valid):
            told += [list(examples.texts), [list(words) for words in examples.words or ()]]
            told += [examples.labels[task.name].tolist() for task in self.tasks]
        return _digest(told)

    def __call__(self, context: WorkerContext) -> None:
        from llmembed.finetuning.heads import start
        from llmembed.finetuning.rows import encode_examples

        folder = self.source.folder()
        tokeniser = load_tokeniser(folder, self.source.revision)
        longest = min(self.config.max_tokens, self.source.context or self.config.max_tokens)
        rows = encode_examples(tokeniser, self.tasks, self.train, longest)
        valid = encode_examples(tokeniser, self.tasks, self.valid, longest)

        def build(dtype: torch.dtype) -> Any:
            model = start(
                folder,
                self.source.revision,
                self.tasks,
                pooling=self.pooling,
                dropout=self.config.dropout,
                dtype=dtype,
            )
            model.weights = dict(self.config.loss_weights)
            model.class_weights = self._class_weights() if self.config.class_weights else {}
            model.focal = self.config.focal
            return model

        run(context, self.config, build, tokeniser, rows, valid)

    def _class_weights(self) -> dict[str, torch.Tensor]:
        """By task, (C,); of words by their tags."""
        import torch

        from llmembed.heads.losses import class_weights

        return {
            task.name: class_weights(task, torch.as_tensor(self.train.labels[task.name]))
            for task in self.tasks
        }


@dataclass(frozen=True, kw_only=True)
class DecoderWork:
    """Fine-tunes a causal model on prompts and their answers."""

    source: Source
    train: AnswerRows
    valid: AnswerRows
    config: FinetuneConfig

    def digest(self) -> str:
        """The same for the same training, whoever asks."""
        rows = [[[*map(list, part.ids)], list(part.starts)] for part in (self.train, self.valid)]
        return _digest([self.source.label, self.config.to_json(), rows])

    def __call__(self, context: WorkerContext) -> None:
        from llmembed.finetuning.causal import start
        from llmembed.finetuning.rows import pad_of

        folder = self.source.folder()
        tokeniser = load_tokeniser(folder, self.source.revision)

        def build(dtype: torch.dtype) -> Any:
            return start(folder, self.source.revision, config=self.config, dtype=dtype)

        pad = pad_of(tokeniser)
        run(context, self.config, build, tokeniser, self.train.rows(pad), self.valid.rows(pad))


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def load_tokeniser(folder: str, revision: str | None = None) -> Any:
    """Raises ``ModelError``."""
    from llmembed.backbones.folder_checks import read_tokenizer

    return read_tokenizer(folder, revision=revision)


def run(
    context: WorkerContext,
    config: FinetuneConfig,
    build: Callable[[torch.dtype], Any],
    tokeniser: Any,
    rows: Rows,
    valid: Rows,
) -> None:
    """Train what ``build`` makes, from where the context says. The last folder reported holds
    ``best``, the model as plain files, and ``progress.json``."""
    import torch
    from transformers import set_seed

    from llmembed.finetuning.arguments import arguments
    from llmembed.finetuning.trainer import BEST, PROGRESS, RESUME, Finetuner
    from llmembed.metering import Meter

    no_gpu_is_fine()
    earlier = context.resume_from
    with tempfile.TemporaryDirectory(prefix="llmembed-finetune-") as temporary, Meter() as meter:
        work = Path(temporary)
        bf16 = computes_bf16(config)
        args = arguments(config, context, len(rows), bf16=bf16, work=work)
        set_seed(config.seed)
        # DeepSpeed keeps float32 copies itself, frozen weights need none.
        reduced = bf16 and (context.deepspeed is not None or config.lora is not None)
        model = build(torch.bfloat16 if reduced else torch.float32)
        _forget_unused_names(model)
        if bf16 and context.deepspeed is not None:
            for parameter in model.parameters():  # heads and adapters too: ZeRO 3 wants one type
                if parameter.dtype == torch.float32:
                    parameter.data = parameter.data.to(torch.bfloat16)
        trainer = Finetuner(
            model=model,
            args=args,
            tokeniser=tokeniser,
            rows=rows,
            valid=valid,
            config=config,
            context=context,
            work=work,
            meter=meter,
        )
        done = False
        if earlier is not None:
            trainer.take_over(earlier)
            done = json.loads((earlier / PROGRESS).read_text(encoding="utf-8"))["done"]
        if not done:
            point = None if earlier is None else str(earlier / RESUME)
            trainer.train(resume_from_checkpoint=point)
            if config.keep == "last" or trainer.best is None:
                trainer.write_plain(work / BEST)
        trainer.checkpoint(done=True)


def _forget_unused_names(model: torch.nn.Module) -> None:
    """Under ZeRO 3 transformers 5.23 takes every renaming it knows of for one that the checkpoint
    needed, and saving would undo them all: BERT's LayerNorm would get names of 2018. Without this
    it goes by the model's own class."""
    import transformers.integrations.deepspeed

    deepspeed: Any = transformers.integrations.deepspeed
    if deepspeed.is_deepspeed_zero3_enabled():
        for module in model.modules():
            if "_weight_conversions" in vars(module):  # peft's wrapper has what it wraps
                del module._weight_conversions


def part_of(examples: Examples, tasks: Sequence[Task]) -> Examples:
    """``examples`` with the labels of ``tasks`` alone, which is all that workers need."""
    names = [task.name for task in tasks]
    words = examples.words if any(task.kind == "tokens" for task in tasks) else None
    labels = {name: examples.labels[name] for name in names}
    return Examples(texts=list(examples.texts), labels=labels, words=words)
