"""The Hugging Face Trainer's arguments, from ours."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import TrainingArguments

from llmembed.contract import WorkerContext
from llmembed.finetuning.config import FinetuneConfig


def arguments(
    config: FinetuneConfig, context: WorkerContext, rows: int, *, bf16: bool, work: Path
) -> TrainingArguments:
    """The Trainer's arguments; they must exist before the model, so that ZeRO 3 shares out its
    weights while they are read."""
    micro, accumulated = config.micro(context.world_size)
    steps, every = config.steps(rows), config.evaluate_every(rows)
    deepspeed = None
    if context.deepspeed is not None:
        # Whether bfloat16 is to be had is known here, not where the workers were planned.
        deepspeed = {**context.deepspeed, "bf16": {"enabled": bf16}}
    gpu = torch.cuda.is_available()
    found = TrainingArguments(
        output_dir=str(work / "trainer"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        max_steps=steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule if not config.warmup else _WARMED[config.schedule],
        warmup_steps=math.ceil(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=bf16,
        use_cpu=not gpu,
        activation_checkpointing=config.activation_checkpointing,
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=min(every, config.checkpoint_steps or every),
        train_sampling_strategy="sequential",
        seed=config.seed,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=gpu,
        deepspeed=deepspeed,
        # Set up by the runtime: see cluster/deepspeed.py.
        accelerator_config={"use_configured_state": deepspeed is not None and not gpu},
    )
    if found.n_gpu > 1:
        found._n_gpu = 1  # one device a worker: more would be torch's DataParallel
    return found


_WARMED = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
