"""Where a trained model's files lie, and how long."""

from __future__ import annotations

import os
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from llmembed.contract import Runtime, Trained
from llmembed.errors import ConfigError

BEST, RESUME = "best", "resume"


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model's files. ``path`` lies where every machine of the runtime sees it, unless ``local``.
    What a fit left is deleted with the last classifier that holds it. ``run``: the training's own
    folder or address, which stays: started again, the same training finds itself done. Who has
    saved the classifier deletes it."""

    path: Path
    local: bool = False
    run: str | None = None

    @classmethod
    def left_by(cls, trained: Trained, runtime: Runtime, name: str) -> ModelFolder:
        """The best model of a training that ended."""
        assert trained.folder is not None, "the last report keeps a folder"
        if "://" in runtime.files:  # the run lies there; what is here is a copy
            place = Path(mkdtemp(prefix=f"{name}-"))
            shutil.move(str(trained.folder / BEST), place / "model")
            shutil.rmtree(trained.folder, ignore_errors=True)
            return cls._owned(place / "model", local=True, run=trained.run)
        models = Path(runtime.files) / "finetuned"
        models.mkdir(parents=True, exist_ok=True)
        place = Path(mkdtemp(prefix=f"{name}-", dir=models))
        shutil.copytree(trained.folder / BEST, place / "model", copy_function=_link)
        _trim(trained.folder)
        return cls._owned(place / "model", local=False, run=str(trained.folder.parent))

    @classmethod
    def _owned(cls, path: Path, *, local: bool, run: str | None) -> ModelFolder:
        found = cls(path=path, local=local, run=run)
        weakref.finalize(found, shutil.rmtree, path, ignore_errors=True)
        return found

    def copy_to(self, folder: Path) -> None:
        shutil.copytree(self.path, folder, dirs_exist_ok=True)

    @property
    def bytes(self) -> int:
        """Of the weights."""
        return sum(file.stat().st_size for file in self.path.rglob("*.safetensors"))


class InModelFolder:
    """What a classifier says of the trained model that it holds."""

    model: ModelFolder

    @property
    def kept_runs(self) -> tuple[str, ...]:
        """Folders and addresses of the training that nobody needs once the classifier is saved."""
        return () if self.model.run is None else (self.model.run,)

    @property
    def memory_bytes(self) -> int:
        """What the model takes where it answers."""
        return self.model.bytes


def check_reach(runtime: Runtime, weights: int | None = None) -> None:
    """Raise ``ConfigError`` where the actors of several machines could not read a fine-tuned model
    of ``weights`` bytes, before it is trained. Below ``SHIP_AT_MOST`` it is sent along; None: a
    model that never is."""
    from llmembed.finetuning.answers import SHIP_AT_MOST

    if weights is not None and weights <= SHIP_AT_MOST:
        return
    if "://" in runtime.files and runtime.machines > 1:
        raise ConfigError(
            f"a fine-tuned model of this size answers from its folder, which the cluster's "
            f"{runtime.machines} machines must all see: give --files a folder that they share, "
            f"not {runtime.files}"
        )


def _trim(last: Path) -> None:
    """Leave of a run what says that it is done, and its best model."""
    for checkpoint in last.parent.iterdir():
        shutil.rmtree(checkpoint / RESUME, ignore_errors=True)
        if checkpoint != last:
            shutil.rmtree(checkpoint / BEST, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """The file under a second name, which takes no room; a copy where that can't be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
