"""What a sweep has done, on disk: one small file a fit, complete or absent.

::

    files/sweeps/NAME/sweep.json       what was asked for, and the MLflow run
                      fits/ID.json     one finished fit: status, reason, figures
                      test/SEED.json   what test said of the winner fitted by that seed

A sweep that was killed goes on from here: what has a file is never run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmembed.errors import ConfigError
from tune.heads.space import Configuration
from tune.models.space import TrainingConfiguration

AnyConfiguration = Configuration | TrainingConfiguration
Status = Literal["ok", "failed", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One fit to be made: a configuration and a seed."""

    configuration: AnyConfiguration
    seed: int

    @property
    def id(self) -> str:
        return f"{self.configuration.id}-{self.seed}"

    def to_json(self) -> dict[str, Any]:
        return {"configuration": self.configuration.to_json(), "seed": self.seed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Planned:
        told = data["configuration"]
        read: type[AnyConfiguration] = TrainingConfiguration if "kind" in told else Configuration
        return cls(configuration=read.from_json(told), seed=data["seed"])


@dataclass(frozen=True, kw_only=True)
class Record:
    """One fit that is over.

    ``failed`` has its ``reason``; ``stopped`` was ended early by the search and is no candidate.
    ``figures``: ``valid_accuracy`` (mean over tasks; F1 for ``multi``), ``valid_accuracy/TASK``,
    ``valid_loss`` (of heads), ``seconds``, ``energy_joules``, ``latency_seconds`` (of fusion and
    head at batch 1; of a model trained whole, of all of it), ``parameters``, ``epochs``. A grouped
    fit's seconds and joules are its share of the group's, by parameters. ``history``: validation
    accuracy by epoch where the fit was alone. ``run``: the MLflow run that tells it.
    """

    planned: Planned
    status: Status
    reason: str | None = None
    grouped: bool = False
    energy_is_estimated: bool = True
    figures: Mapping[str, float] = field(default_factory=dict)
    history: tuple[float, ...] = ()
    run: str | None = None

    def to_json(self) -> dict[str, Any]:
        own = asdict(self)
        own["planned"] = self.planned.to_json()
        return {**own, "figures": dict(self.figures), "history": list(self.history)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        planned = Planned.from_json(data["planned"])
        return cls(**{**data, "planned": planned, "history": tuple(data["history"])})


class Ledger:
    """The sweep in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, Record] = {}
        for path in sorted((folder / "fits").glob("*.json")):
            record = Record.from_json(json.loads(path.read_text(encoding="utf-8")))
            self.records[record.planned.id] = record

    @property
    def name(self) -> str:
        return self.folder.name

    @classmethod
    def create(cls, folder: Path, facts: Mapping[str, Any]) -> Ledger:
        """Raises ``ConfigError`` where there is a sweep of that name already."""
        if (folder / "sweep.json").exists():
            raise ConfigError(
                f"there is a sweep {folder.name!r} already: go on with "
                f"`llmembed tune --resume {folder.name}`, or give another --name"
            )
        (folder / "fits").mkdir(parents=True, exist_ok=True)
        _write(folder / "sweep.json", facts)
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Raises ``ConfigError`` where there is no such sweep."""
        if not (folder / "sweep.json").is_file():
            known = [path.parent.name for path in folder.parent.glob("*/sweep.json")]
            hint = f"; there are {', '.join(sorted(known))}" if known else ""
            raise ConfigError(f"no sweep {folder.name!r} in {folder.parent}{hint}")
        return cls(folder)

    @property
    def facts(self) -> dict[str, Any]:
        """What ``create`` was given and ``note`` added."""
        facts: dict[str, Any] = json.loads((self.folder / "sweep.json").read_text(encoding="utf-8"))
        return facts

    def note(self, **more: Any) -> None:
        _write(self.folder / "sweep.json", {**self.facts, **more})

    def note_test(self, seed: int, result: Mapping[str, Any]) -> None:
        """Keep what the winner's fit by ``seed`` came to: test is not read for it again."""
        (self.folder / "test").mkdir(exist_ok=True)
        _write(self.folder / "test" / f"{seed}.json", result)

    def tests(self) -> dict[int, dict[str, Any]]:
        """What ``note_test`` was given, by seed."""
        files = sorted((self.folder / "test").glob("*.json"))
        return {int(file.stem): json.loads(file.read_text(encoding="utf-8")) for file in files}

    def write(self, record: Record) -> bool:
        """Keep ``record``; False where that fit has one already (the first stands)."""
        if record.planned.id in self.records:
            return False
        self._put(record)
        return True

    def tell_run(self, record: Record, run: str) -> None:
        """Note the MLflow run that tells a record."""
        self._put(replace(record, run=run))

    def _put(self, record: Record) -> None:
        _write(self.folder / "fits" / f"{record.planned.id}.json", record.to_json())
        self.records[record.planned.id] = record


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Written aside and renamed: a reader sees the old or the new, never half."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    aside.replace(path)
