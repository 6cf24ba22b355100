"""What a sweep has done, with the other files: one small file a fit, complete or absent.

::

    FILES/sweeps/NAME/sweep.json       what was asked for, and the MLflow run
                      fits/ID.json     one finished fit: status, reason, figures
                      test/SEED.json   what test said of the winner fitted by that seed
                      winner.yaml      an experiment with the winner as its only method
                      winner/          the winner's classifier

On a disk or on s3: a sweep that was killed goes on from here, from another machine too; what has a
file is never run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmembed.embeddings.folder import Folder
from llmembed.errors import ConfigError
from tune.heads.space import Configuration
from tune.models.space import TrainingConfiguration

AnyConfiguration = Configuration | TrainingConfiguration
Status = Literal["ok", "failed", "stopped"]
FACTS = "sweep.json"
READERS = 16
"""Files read at once: on s3 each takes a while."""


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
    ``figures``: ``valid_accuracy`` (mean over tasks of what each is judged by: accuracy, F1 for
    ``multi``, unless the sweep names another metric; higher is better), ``valid_accuracy/TASK``,
    ``valid_loss`` (of heads), ``seconds``, ``energy_joules``, ``latency_seconds`` (of fusion and
    head at batch 1; of a model trained whole, of all of it), ``parameters``, ``epochs``. A grouped
    fit's seconds and joules are its share of the group's, by parameters. ``history``: validation
    values by epoch where the fit was alone. ``run``: the MLflow run that tells it.
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
    """The sweep in ``place``. ``scratch``: a folder of this machine for what can be made again."""

    def __init__(self, place: Folder, scratch: Path | None = None) -> None:
        self.place = place
        own = place.local or scratch
        assert own is not None, "what lies on s3 needs a folder here for what can be made again"
        self.scratch = own
        self.records: dict[str, Record] = {}
        fits = place.child("fits")
        names = [name for name in fits.names() if name.endswith(".json")]
        with ThreadPoolExecutor(READERS) as pool:
            for content in pool.map(fits.read, names):
                record = Record.from_json(json.loads(content))
                self.records[record.planned.id] = record
        self.facts: dict[str, Any] = json.loads(place.read(FACTS))

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.place.address.partition("?")[0].rstrip("/").rpartition("/")[2]

    @classmethod
    def create(
        cls, place: Folder | Path, facts: Mapping[str, Any], scratch: Path | None = None
    ) -> Ledger:
        """Raises ``ConfigError`` where there is a sweep of that name already."""
        place = _folder(place)
        if FACTS in place.names():
            name = place.address.partition("?")[0].rpartition("/")[2]
            raise ConfigError(
                f"there is a sweep {name!r} already: go on with `llmembed tune --resume {name}`, "
                "or give another --name"
            )
        _write(place, FACTS, facts)
        return cls(place, _made(scratch))

    @classmethod
    def open(cls, place: Folder | Path, scratch: Path | None = None) -> Ledger:
        """Raises ``ConfigError`` where there is no such sweep."""
        place = _folder(place)
        if FACTS not in place.names():
            base, _, name = place.address.partition("?")[0].rpartition("/")
            known: list[str] = []
            if place.local is not None:
                known = sorted(path.parent.name for path in place.local.parent.glob(f"*/{FACTS}"))
            hint = f"; there are {', '.join(known)}" if known else ""
            raise ConfigError(f"no sweep {name!r} in {base}{hint}")
        return cls(place, _made(scratch))

    def note(self, **more: Any) -> None:
        """Add to ``facts``, which are what ``create`` was given."""
        self.facts = {**self.facts, **more}
        _write(self.place, FACTS, self.facts)

    def note_test(self, seed: int, result: Mapping[str, Any]) -> None:
        """Keep what the winner's fit by ``seed`` came to: test is not read for it again."""
        _write(self.place.child("test"), f"{seed}.json", result)

    def tests(self) -> dict[int, dict[str, Any]]:
        """What ``note_test`` was given, by seed."""
        place = self.place.child("test")
        names = [name for name in place.names() if name.endswith(".json")]
        return {int(name.removesuffix(".json")): json.loads(place.read(name)) for name in names}

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
        _write(self.place.child("fits"), f"{record.planned.id}.json", record.to_json())
        self.records[record.planned.id] = record


def _folder(place: Folder | Path) -> Folder:
    return place if isinstance(place, Folder) else Folder(str(place))


def _made(scratch: Path | None) -> Path | None:
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    return scratch


def _write(place: Folder, name: str, content: Mapping[str, Any]) -> None:
    place.write(name, json.dumps(content, indent=1, ensure_ascii=False).encode())
