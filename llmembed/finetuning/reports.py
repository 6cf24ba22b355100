"""What a training tells of itself while it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from transformers import TrainerCallback

from llmembed.errors import ConfigError

if TYPE_CHECKING:
    from llmembed.contract import WorkerContext
    from llmembed.finetuning.config import FinetuneConfig
    from llmembed.finetuning.speed import Speed


class Reported(Protocol):
    """The training that is told of."""

    state: Any
    config: FinetuneConfig
    context: WorkerContext
    speed: Speed
    without_better: int
    history: list[dict[str, float]]
    latest: dict[str, float]

    def mend_optimizer(self) -> None: ...

    def checkpoint(self, *, done: bool) -> None: ...


class Reports(TrainerCallback):
    """Tells the context of losses, validation and checkpoints, and stops in time."""

    def __init__(self, trainer: Reported) -> None:
        self._trainer = trainer

    def _tell(self, metrics: Mapping[str, float]) -> None:
        trainer = self._trainer
        told = {"step": float(trainer.state.global_step), **metrics}
        trainer.history.append(told)
        trainer.latest.update(told)
        trainer.context.report(told, None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.mend_optimizer()  # what was gone on from is read by now

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise ConfigError(
                f"the loss is {logs['loss']} at step {state.global_step}: lower learning_rate, or "
                "raise warmup"
            )
        named = {"loss": "train/loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
        told = {name: float(logs[key]) for key, name in named.items() if key in logs}
        self._tell({**told, **self._trainer.speed.mark()})

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        self._tell(metrics)
        patience = self._trainer.config.patience
        if patience is not None and self._trainer.without_better >= patience:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.checkpoint(done=False)
