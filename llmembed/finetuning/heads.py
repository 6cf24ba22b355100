"""An encoder with a linear head for each task: of the text, or of each word."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmembed.backbones import weights
from llmembed.backbones.backbone import quiet_loading
from llmembed.backbones.folder_checks import loading
from llmembed.contract import Prediction, Task
from llmembed.errors import ModelError
from llmembed.finetuning.rows import NO_LABEL
from llmembed.finetuning.trainable import Kept
from llmembed.heads.losses import focal_factor, missed
from llmembed.metrics import metric_of
from llmembed.metrics.deciding import judged, plainly_decided
from llmembed.metrics.measuring import value

Pooling = Literal["mean", "cls"]
HEADS_FILE = "heads.safetensors"
SETTINGS_FILE = "heads.json"


class HeadedEncoder(nn.Module):
    """``encoder`` and ``heads``: one linear layer a task, over the mean of the last states (or the
    first one, ``cls``), for words over each token's own state."""

    accepts_loss_kwargs = False  # told to the Trainer: the loss is divided here
    chosen_by = "score"
    merges = True
    _keys_to_ignore_on_save = None  # the Trainer asks for it where a checkpoint lacks a name

    def __init__(self, encoder: Any, tasks: Sequence[Task], *, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.encoder = encoder
        self.tasks = tuple(tasks)
        self.pooling = pooling
        width = int(encoder.config.get_text_config().hidden_size)
        self.heads = nn.ModuleList(nn.Linear(width, len(task.classes)) for task in tasks)
        told = getattr(encoder.config, "hidden_dropout_prob", 0.0)
        self.dropout = nn.Dropout(float(told or 0.0))
        self.weights: Mapping[str, float] = {}
        self.class_weights: Mapping[str, Tensor] = {}
        self.focal = 0.0
        for name, parameter in encoder.named_parameters():
            if "pooler" in name.split("."):
                parameter.requires_grad_(False)  # nothing reads it

    @property
    def losses(self) -> tuple[str, ...]:
        """What has a loss of its own."""
        return tuple(task.name for task in self.tasks)

    @property
    def judged(self) -> tuple[str, ...]:
        """Tasks of another metric, or of costs."""
        return tuple(task.name for task in self.tasks if not plainly_decided(task))

    @property
    def measures(self) -> dict[str, str]:
        """Accuracy, or F1 over all labels (for words over tags, not yet over slots), or the metric
        that a task names."""
        told = {"single": "accuracy", "multi": "micro_f1", "tokens": "micro_f1"}
        return {
            task.name: told[task.kind] if plainly_decided(task) else metric_of(task)
            for task in self.tasks
        }

    @property
    def config(self) -> Any:
        """What the Trainer and DeepSpeed ask for the model's width."""
        return self.encoder.config

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Of each task float32 (B, C), for words (B, T, C)."""
        states = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state  # (B, T, D)
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            mask = attention_mask[..., None].to(states.dtype)
            pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        states, pooled = self.dropout(states), self.dropout(pooled)
        return [
            head(states if task.kind == "tokens" else pooled).float()
            for task, head in zip(self.tasks, self.heads, strict=True)
        ]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, counts: Tensor, **labels: Tensor
    ) -> dict[str, Any]:
        """``counts`` (tasks,): by how many labels each task's summed loss is divided."""
        found = self.logits(input_ids, attention_mask)
        # What is told of validation is the plain loss.
        weights, focal = (self.class_weights, self.focal) if self.training else ({}, 0.0)
        sums = [
            loss_sum(
                task,
                logits,
                labels[f"labels/{task.name}"],
                weights=weights.get(task.name),
                focal=focal,
            )
            for task, logits in zip(self.tasks, found, strict=True)
        ]
        loss = sum(
            self.weights.get(task.name, 1.0) * total / count.clamp(min=1)
            for task, total, count in zip(self.tasks, sums, counts, strict=True)
        )
        return {"loss": loss, "sums": torch.stack(sums).detach(), "logits": found}

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        self.encoder.activation_checkpointing_enable(**settings)

    def label_counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """How many labels of each task a batch holds, float32 (tasks,)."""
        return torch.stack(
            [
                (batch[f"labels/{task.name}"] != NO_LABEL).sum().float()
                if task.kind != "multi"
                else batch[f"labels/{task.name}"].new_tensor(float(len(batch["input_ids"]))).float()
                for task in self.tasks
            ]
        )

    def tallies(self, logits: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Right, answered and true labels of each task, float64 (tasks, 3). For words the tag O
        counts neither as answered nor as true."""
        rows = []
        for task, found in zip(self.tasks, logits, strict=True):
            truth = batch[f"labels/{task.name}"]
            if task.kind == "multi":
                said, true = found >= 0, truth > 0.5
                rows.append([(said & true).sum(), said.sum(), true.sum()])
                continue
            answer, known = found.argmax(dim=-1), truth != NO_LABEL
            outside = task.classes.index("O") if "O" in task.classes else -1
            if task.kind == "tokens" and outside >= 0:
                said, true = known & (answer != outside), known & (truth != outside)
            else:
                said = true = known
            rows.append([(said & true & (answer == truth)).sum(), said.sum(), true.sum()])
        return torch.tensor([[int(value) for value in row] for row in rows], dtype=torch.float64)

    def kept(self, logits: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Kept:
        """Of the tasks that tallies do not suffice for; without words beyond the token limit."""
        found: Kept = {}
        for task, said in zip(self.tasks, logits, strict=True):
            if plainly_decided(task):
                continue
            truth = batch[f"labels/{task.name}"]
            if task.kind == "tokens":
                known = truth != NO_LABEL
                parts = (said.argmax(dim=-1)[known], truth[known], known.sum(dim=1))
            elif task.kind == "multi":
                parts = (said.sigmoid(), truth > 0.5, truth[:, 0])
            else:
                parts = (said.softmax(dim=1), truth, truth)
            found[task.name] = tuple(part.cpu().numpy() for part in parts)
        return found

    def values(self, kept: Sequence[Kept]) -> dict[str, float]:
        """What ``kept`` of all batches is worth, by task, under its metric."""
        found = {}
        for task in self.tasks:
            if plainly_decided(task):
                continue
            said, truth, lengths = (
                np.concatenate(parts)
                for parts in zip(*(each[task.name] for each in kept), strict=True)
            )
            if task.kind != "tokens":
                found[task.name] = judged(task, truth, said)
                continue
            tagged = Prediction(
                labels=said,
                scores=None,
                invalid=np.zeros(len(lengths), dtype=bool),
                offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            )
            found[task.name] = value(task, truth, tagged)
        return found

    def write(self, folder: Path, state: Mapping[str, Tensor], tokeniser: Any) -> None:
        """``folder``/encoder as ``save_pretrained`` writes it, with its tokenizer, and the heads
        beside it. ``state``: this model's weights, gathered from wherever they are."""
        own = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
        with quiet_loading():
            self.encoder.save_pretrained(folder / "encoder", state_dict=own)
        tokeniser.save_pretrained(folder / "encoder")
        heads = {k: v for k, v in state.items() if k.startswith("heads.")}
        save_file({k: v.float().cpu().contiguous() for k, v in heads.items()}, folder / HEADS_FILE)
        told = {"pooling": self.pooling, "tasks": [task.to_json() for task in self.tasks]}
        (folder / SETTINGS_FILE).write_text(json.dumps(told, indent=1), encoding="utf-8")


def loss_sum(
    task: Task,
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    focal: float = 0.0,
) -> Tensor:
    """Cross-entropy summed over the labels of a batch; for ``multi`` of a text the mean over its
    classes. ``weights`` (C,) and ``focal``: see ``FinetuneConfig``."""
    weights = None if weights is None else weights.to(logits)
    if task.kind == "multi":
        each = nn.functional.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=weights, reduction="none"
        )
        if focal:
            each = each * focal_factor(missed(logits, labels, task.kind), focal)
        return each.mean(dim=1).sum()
    flat, truth = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    if not focal:
        return nn.functional.cross_entropy(
            flat, truth, weights, ignore_index=NO_LABEL, reduction="sum"
        )
    known = truth != NO_LABEL
    flat, truth = flat[known], truth[known]
    each = nn.functional.cross_entropy(flat, truth, weights, reduction="none")
    return (each * focal_factor(missed(flat, truth, task.kind), focal)).sum()


def start(
    folder: str,
    revision: str | None,
    tasks: Sequence[Task],
    *,
    pooling: Pooling,
    dropout: float | None,
    dtype: torch.dtype,
) -> HeadedEncoder:
    """A pretrained encoder with new heads. Raises ``ModelError``."""
    from transformers import AutoConfig, AutoModel

    config: Any = AutoConfig.from_pretrained(folder, revision=revision)
    if dropout is not None:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout"):
            if hasattr(config, name):
                setattr(config, name, dropout)
    with loading(folder), quiet_loading():
        encoder: Any = AutoModel.from_pretrained(
            folder, revision=revision, config=config, dtype=dtype, use_safetensors=True
        )
    return HeadedEncoder(encoder, tasks, pooling=pooling)


def read(folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> HeadedEncoder:
    """The model that ``write`` left in ``folder``, ready to answer. Raises ``ModelError``."""
    from transformers import AutoModel

    try:
        weights.check_plain(folder / "encoder")
        told = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        with quiet_loading():
            encoder: Any = AutoModel.from_pretrained(
                folder / "encoder", dtype=dtype, use_safetensors=True, trust_remote_code=False
            )
        heads = load_file(folder / HEADS_FILE)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ModelError(f"{folder} holds no fine-tuned encoder: {reason}") from error
    model = HeadedEncoder(
        encoder, [Task.from_json(task) for task in told["tasks"]], pooling=told["pooling"]
    )
    model.heads.load_state_dict({k.removeprefix("heads."): v for k, v in heads.items()})
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)
