"""The Hugging Face ``Trainer``, taught four things: a loss that is the same on any number of
workers, validation without gathering logits, keeping the best model as plain files, and reporting.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from llmembed.contract import Usage, WorkerContext
from llmembed.errors import ConfigError
from llmembed.finetuning.config import FinetuneConfig, computes_bf16
from llmembed.finetuning.order import Ordered, order_of
from llmembed.finetuning.packing import flat_batch
from llmembed.finetuning.reports import Reports
from llmembed.finetuning.rows import Rows
from llmembed.finetuning.speed import Speed
from llmembed.finetuning.trainable import Kept, Trainable, of_all_workers
from llmembed.metering import Meter
from llmembed.metering.disk import room_for

BEST, RESUME, PROGRESS = "best", "resume", "progress.json"
ROOM = "free some, or set TMPDIR to a larger disk"


class Finetuner(Trainer):
    """One worker's part of the training."""

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        tokeniser: Any,
        rows: Rows,
        valid: Rows,
        config: FinetuneConfig,
        context: WorkerContext,
        work: Path,
        meter: Meter,
    ) -> None:
        order = order_of(
            rows.lengths,
            batch=config.batch,
            steps=args.max_steps,
            seed=config.seed,
            grouped=config.group_by_length,
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=Ordered(order),
            eval_dataset=Ordered(np.arange(len(valid))),
            data_collator=partial(flat_batch, rows) if config.padding_free else rows.batch,
            callbacks=[Reports(self)],
        )
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True
        self.trainable: Trainable = model
        self.module: nn.Module = model
        self.tokeniser, self.valid, self.config, self.context = tokeniser, valid, config, context
        self.work, self.meter = work, meter
        self.best: tuple[float, float] | None = None
        self.best_step = 0
        self.without_better = 0
        self.latest: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.spent = Usage()
        self._decays: list[float] = []
        sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
        self.trained = sum(size for size, trained in sizes if trained)
        self.speed = Speed(
            parameters=sum(size for size, _ in sizes),
            trained=self.trained,
            workers=context.world_size,
        )

    # --- what a batch's loss is divided by

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The batches that make up this worker's share of a step, each told by how many labels of
        the whole step the losses are divided: a mean of means would weigh short texts more."""
        batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return [], None
        counts = torch.stack([self.trainable.label_counts(batch) for batch in batches]).sum(dim=0)
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        positions = sum(batch["attention_mask"].numel() for batch in batches)
        sizes = torch.tensor([tokens, positions], dtype=torch.float64)
        every = self._summed(torch.cat([sizes.to(device), counts.double().to(device)]))
        self.meter.count(tokens=tokens)
        self.speed.add(int(every[0]), int(every[1]))
        # Gradients are averaged over the workers afterwards.
        shares = (every[2:] / self.context.world_size).float()
        for batch in batches:
            batch["counts"] = shares.to(batch["input_ids"].device)
        return batches, None

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """On the device. DeepSpeed's lower precision is the model's: what losses are divided by,
        and labels, stay as they are."""
        exact = {name: v for name, v in inputs.items() if torch.is_floating_point(v)}
        ready: dict[str, Any] = super()._prepare_inputs(inputs)
        device = ready["input_ids"].device
        return {**ready, **{name: value.to(device) for name, value in exact.items()}}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        found = model(**inputs)
        return (found["loss"], found) if return_outputs else found["loss"]

    def _summed(self, values: Tensor) -> Tensor:
        if self.context.world_size > 1:
            dist.all_reduce(values)
        return values

    # --- validation

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Losses and scores of validation; every worker reads a share of it, in as many steps as
        the others, as ZeRO 3 needs."""
        model: Any = self.model_wrapped
        model.eval()
        size, world = self.args.per_device_train_batch_size, self.context.world_size
        order = np.argsort(-self.valid.lengths, kind="stable")
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        losses = len(self.trainable.losses)
        total = torch.zeros(losses, 5, dtype=torch.float64)
        kept: list[Kept] = []
        with torch.no_grad():
            for first in range(0, len(chunks), world):
                own = first + self.context.rank
                batch = self.valid.batch([int(row) for row in chunks[min(own, len(chunks) - 1)]])
                counts = self.trainable.label_counts(batch)
                inputs = self._prepare_inputs({**batch, "counts": torch.ones(losses)})
                found = model(**inputs)
                if own < len(chunks):
                    self.meter.count(tokens=int(batch["attention_mask"].sum()))
                    told = self.trainable.tallies(found["logits"], inputs)
                    kept.append(self.trainable.kept(found["logits"], inputs))
                    sums = found["sums"].double().cpu()[:, None]
                    total += torch.cat([sums, counts.double()[:, None], told.cpu()], dim=1)
        total = self._summed(total.to(self.args.device)).cpu()
        if self.trainable.judged:
            kept = of_all_workers(kept, self.context.world_size)
        metrics = self._figures(total, self.trainable.values(kept))
        self._note_best(metrics)
        self.state.epoch = self.state.epoch or 0.0
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _figures(self, total: Tensor, values: Mapping[str, float]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        loss, scores = 0.0, []
        for name, row in zip(self.trainable.losses, total.tolist(), strict=True):
            summed, count, right, answered, true = row
            own = summed / max(1.0, count)
            share = 2 * right / (answered + true) if answered + true else 0.0
            scores.append(values.get(name, share))
            metrics[f"valid/{name}/loss"] = own
            metrics[f"valid/{name}/{self.trainable.measures[name]}"] = scores[-1]
            loss += self.trainable.weights.get(name, 1.0) * own
        return {**metrics, "valid/loss": loss, "valid/score": sum(scores) / len(scores)}

    def _note_best(self, metrics: Mapping[str, float]) -> None:
        loss = metrics["valid/loss"]
        if not math.isfinite(loss):
            raise ConfigError(
                f"the validation loss is {loss} after step {self.state.global_step}: lower "
                "learning_rate, or raise warmup"
            )
        key = (metrics["valid/score"] if self.trainable.chosen_by == "score" else -loss, -loss)
        if self.best is None or key > self.best:
            self.best, self.without_better = key, 0
            self.best_step = self.state.global_step
            self.write_plain(self.work / BEST)
        else:
            self.without_better += 1

    def write_plain(self, folder: Path) -> None:
        """The model as plain files, gathered from all workers where ZeRO 3 shared it out."""
        if getattr(self, "is_deepspeed_enabled", False) and self.model_wrapped is not self.model:
            self._leave_out_frozen()
            state = self.accelerator.get_state_dict(self.model_wrapped)
        else:
            state = self.module.state_dict() if self.context.rank == 0 else {}
        if self.context.rank == 0:
            # A GPU full of training has no room for what writing makes of the weights.
            state = {name: value.detach().cpu() for name, value in state.items()}
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            size = sum(value.numel() * value.element_size() for value in state.values())
            with room_for(folder, size, "the model so far", advice=ROOM):
                self.trainable.write(folder, state, self.tokeniser)

    # --- checkpoints

    def _leave_out_frozen(self) -> None:
        """DeepSpeed gathers and writes frozen weights too unless told otherwise, which the Trainer
        does for peft's own models alone."""
        engine: Any = self.model_wrapped
        if self.trainable.merges or "save_checkpoint" in vars(engine):
            return
        for name in ("save_checkpoint", "_zero3_consolidated_16bit_state_dict"):
            setattr(engine, name, partial(getattr(engine, name), exclude_frozen_parameters=True))

    def _save_checkpoint(self, *given: Any, **named: Any) -> None:
        if getattr(self, "is_deepspeed_enabled", False):
            self._leave_out_frozen()
        with room_for(self.work, self._checkpoint_bytes(), "a checkpoint", advice=ROOM):
            super()._save_checkpoint(*given, **named)

    def _checkpoint_bytes(self) -> int:
        """At least this worker's share: weights, and AdamW's two float32 values a trained one."""
        kept = [p for p in self.module.parameters() if self.trainable.merges or p.requires_grad]
        size = sum(int(getattr(p, "ds_numel", p.numel())) * p.element_size() for p in kept)
        return int(size + 8 * self.trained) // self.context.world_size

    def create_optimizer(self, *given: Any, **named: Any) -> Any:
        made = super().create_optimizer(*given, **named)
        self._decays = [group["weight_decay"] for group in made.param_groups]
        return made

    def mend_optimizer(self) -> None:
        """DeepSpeed 0.19 reads a universal checkpoint of ZeRO 3 so that all groups get the first
        one's weight decay, which biases and norms have not, and one tensor that counts the steps of
        all: each group would count it on."""
        if self.optimizer is None:
            return
        if len(self._decays) == len(self.optimizer.param_groups):
            for group, decay in zip(self.optimizer.param_groups, self._decays, strict=True):
                group["weight_decay"] = decay
        for state in self.optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The whole state; what two names share (tied embeddings) is written once."""
        if not self.args.should_save:
            return
        from safetensors.torch import save_file

        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        seen: set[tuple[int, tuple[int, ...]]] = set()
        kept = {}
        for name, value in (state_dict or self.module.state_dict()).items():
            key = (value.data_ptr(), tuple(value.shape))
            if key not in seen:
                seen.add(key)
                kept[name] = value.contiguous()
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    def take_over(self, folder: Path) -> None:
        """Go on from what ``folder``, a checkpoint, says was reached."""
        told = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        self.best = tuple(told["best"]) if told["best"] else None
        self.without_better, self.best_step = told["without_better"], told["best_step"]
        self.history, self.latest = told["history"], told["latest"]
        self.spent = Usage.from_json(told["usage"])
        if (folder / BEST).is_dir() and self.context.rank == 0:
            shutil.copytree(folder / BEST, self.work / BEST, dirs_exist_ok=True)

    def all_usages(self) -> list[Usage]:
        """What each worker took since it was started, by rank."""
        own = self.meter.usage
        if self.context.world_size == 1:
            return [own]
        found: list[Any] = [None] * self.context.world_size
        dist.all_gather_object(found, own.to_json())
        return [Usage.from_json(usage) for usage in found]

    def checkpoint(self, *, done: bool) -> None:
        """Report the state reached, with all that is needed to go on (``done``: to end) there."""
        usages = self.all_usages()
        used = sum(usages, self.spent)
        told = {f"joules/worker_{r}": u.energy_joules for r, u in enumerate(usages)}
        # Of a training that had ended before it was started again the state says 0.
        told["step"] = float(self.state.global_step or self.latest.get("step", 0))
        self.latest |= told
        resume = self.work / RESUME
        shutil.rmtree(resume, ignore_errors=True)
        saved = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if saved.is_dir() and not done:
            saved.rename(resume)
        shutil.rmtree(str(self.args.output_dir), ignore_errors=True)
        if self.context.rank == 0:
            progress = {
                "done": done,
                "best": self.best,
                "best_step": self.best_step,
                "without_better": self.without_better,
                "history": self.history,
                "latest": self.latest,
                "usage": used.to_json(),
                "parameters_trained": self.trained,
                "bf16": computes_bf16(self.config),
            }
            (self.work / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        own = json.dumps(usages[self.context.rank].to_json())
        (self.work / f"usage-{self.context.rank}.json").write_text(own, encoding="utf-8")
        self.context.report(self.latest if done else told, self.work)
