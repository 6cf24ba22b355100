"""What the head-training loop leaves: scores, features, and a folder of safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmembed.contract import Task
from llmembed.errors import ConfigError, ModelError
from llmembed.heads.checks import check_views
from llmembed.heads.config import HeadConfig
from llmembed.heads.modules import FusedHeads, FusionModule
from llmembed.heads.rows import CHUNK, Views, to_tensor

WEIGHTS = "head.safetensors"
SETTINGS = "head.json"


def pick_device(device: str) -> torch.device:
    """``auto``: a GPU if there is one. Raises ``ConfigError`` for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}: expected auto, cpu or cuda:N") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but torch sees no GPU here")
    return place


def pick_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """``auto``: bf16 on a GPU that has it and on a CPU with AVX-512 bf16 or AMX."""
    if precision == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if fast else "fp32"
    return "bf16" if precision == "bf16" else "fp32"


@dataclass(frozen=True, kw_only=True)
class TrainedHead:
    """A fusion, its scalers and one head per task, fitted.

    ``temperatures`` divide the logits, one per task. ``metrics`` are validation's at the chosen
    epoch (``valid_accuracy``, ``valid_accuracy/TASK``, ``valid_loss``: see ``judging.quality``),
    ``epochs`` how many ran, ``best_epoch`` that of the weights kept (0: written before it was
    told).
    """

    model: FusedHeads
    tasks: tuple[Task, ...]
    config: HeadConfig
    temperatures: tuple[float, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    best_epoch: int = 0

    @property
    def parameters_trained(self) -> int:
        """Trained weights of fusion and heads; means and deviations are not counted."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views that are read."""
        return tuple(self.model.shapes)

    def _batches(self, views: Views) -> Iterator[dict[str, Tensor]]:
        """A batch of no rows for no texts, so that the answers still have their widths."""
        shapes = self.model.shapes
        empty = shapes.keys() <= views.keys() and all(len(views[v]) == 0 for v in shapes)
        count = 0 if empty else check_views(views, shapes, "given")
        device = next(self.model.parameters()).device
        for start in range(0, max(count, 1), CHUNK):
            yield {
                name: to_tensor(views[name], slice(start, start + CHUNK)).to(device)
                for name in shapes
            }

    @torch.inference_mode()
    def features(self, views: Views) -> npt.NDArray[np.float32]:
        """What the heads see, float32 (N, F). ``views``: name -> (N, L, D)."""
        return np.concatenate([self.model.features(b).cpu().numpy() for b in self._batches(views)])

    @torch.inference_mode()
    def logits(self, views: Views) -> dict[str, npt.NDArray[np.float32]]:
        """Calibrated logits by task, float32 (N, C)."""
        batches = [self.model(batch) for batch in self._batches(views)]
        answers: dict[str, npt.NDArray[np.float32]] = {}
        for number, task in enumerate(self.tasks):
            whole = torch.cat([batch[number] for batch in batches]).float().cpu()
            answers[task.name] = (whole / self.temperatures[number]).numpy()
        return answers

    def scores(self, views: Views) -> dict[str, npt.NDArray[np.float32]]:
        """Probabilities by task, float32 (N, C): softmax for ``single``, sigmoid for ``multi``."""
        answers = self.logits(views)
        for task in self.tasks:
            logits = torch.from_numpy(answers[task.name])
            scored = logits.sigmoid() if task.kind == "multi" else logits.softmax(1)
            answers[task.name] = scored.numpy()
        return answers

    def save(self, folder: Path) -> None:
        """Write ``head.safetensors`` (weights and scalers) and ``head.json``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous().cpu() for name, value in self.model.state_dict().items()}
        save_file(state, folder / WEIGHTS)
        fusion: Any = self.model.fusion
        settings = {
            "fusion": fusion.settings,
            "tasks": [task.to_json() for task in self.tasks],
            "config": self.config.to_json(),
            "temperatures": list(self.temperatures),
            "metrics": dict(self.metrics),
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
        }
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: Path,
        build_fusion: Callable[..., FusionModule],
        *,
        device: str = "cpu",
    ) -> TrainedHead:
        """Read what ``save`` wrote. ``build_fusion`` is ``llmembed.fusion.build_fusion``.

        Raises ``ModelError`` when a file is missing or broken.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        place = pick_device(device)
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            tasks = tuple(Task.from_json(task) for task in settings["tasks"])
            config = HeadConfig.from_json(settings["config"])
            model = FusedHeads(build_fusion(**settings["fusion"]), tasks, config)
            model.load_state_dict(load_file(folder / WEIGHTS))
            return cls(
                model=model.to(place).eval(),
                tasks=tasks,
                config=config,
                temperatures=tuple(settings["temperatures"]),
                metrics=settings["metrics"],
                epochs=settings["epochs"],
                best_epoch=settings.get("best_epoch", 0),
            )
        except (OSError, KeyError, TypeError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelError(f"no readable head in {folder}: {error}") from error
