"""What a sweep came to: on the terminal, and the same figures as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.embeddings.folder import Folder
from llmembed.metrics import LOSSES
from tune.board import Standing, table, words
from tune.ledger import Record
from tune.recording import row
from tune.settings import Sweep

if TYPE_CHECKING:
    from llmembed.texts import Corpus


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a sweep came to. ``standings``: configurations on validation, best first; ``front``: the
    Pareto front where there are two objectives; ``test``: the winner's test figures by task;
    ``place``: where all of it is kept."""

    name: str
    standings: Sequence[Standing]
    winner: Standing | None
    front: Sequence[Standing]
    failed: Sequence[Record]
    test: Mapping[str, Any]
    place: Folder

    @property
    def folder(self) -> Path:
        """``place`` on a disk."""
        assert self.place.local is not None, f"{self.place.address} is not on this machine"
        return self.place.local


def to_json(found: Found, sweep: Sweep, corpus: Corpus) -> dict[str, Any]:
    """The figures that were printed."""
    everyone = [each.configuration for each in found.standings]
    return {
        "sweep": found.name,
        "corpus": corpus.name,
        "partial": corpus.partial,
        "digest": corpus.digest,
        "rows": {part: len(rows) for part, rows in corpus.splits.items()},
        **_searched(sweep),
        "search": sweep.search.model_dump(mode="json"),
        "configurations": [row(each, everyone) for each in found.standings],
        "front": [each.configuration.id for each in found.front],
        "winner": found.winner and row(found.winner, everyone),
        "test": dict(found.test),
        "failed": [
            {
                "settings": r.planned.configuration.to_json(),
                "seed": r.planned.seed,
                "reason": r.reason,
            }
            for r in found.failed
        ],
    }


def _searched(sweep: Sweep) -> dict[str, Any]:
    if sweep.method is not None:
        return {"method": sweep.method.model_dump(mode="json")}
    return {
        "backbones": {name: b.model for name, b in sweep.backbones.items()},
        "views": sweep.views,
        "head": sweep.head,
    }


def say(out: Any, sweep: Sweep, found: Found, ui_command: str) -> None:
    """The table, the winner with its spread, and what to type next."""
    everyone = [each.configuration for each in found.standings]
    objective = sweep.search.second_objective
    out.print(table(found.standings, objective, rows=30), soft_wrap=False)
    for record in found.failed[:5]:
        c = record.planned.configuration
        out.print(f"failed: {words(c, [*everyone, c])} seed {record.planned.seed}: {record.reason}")
    if found.front:
        out.print(f"Pareto front (valid_accuracy, {objective}):")
        out.print(table(sorted(found.front, key=lambda s: -s.accuracy), objective, rows=20))
    if found.winner is None:
        out.print("no winner: no configuration came to its end without a failed fit", style="red")
        return
    best = found.winner
    spread = "" if best.sd is None else f" ± {best.sd:.4f} over {best.seeds} seeds"
    out.print(
        f"winner: [bold]{words(best.configuration, everyone)}[/], validation "
        f"{best.accuracy:.4f}{spread}"
    )
    for task, scores in found.test.get("tasks", {}).items():
        sd = "" if scores["sd"] is None else f" ± {scores['sd']:.4f}"
        part = found.test["part"]
        minus = "-" if scores["metric"] in LOSSES else ""  # what is told is the value
        out.print(f"  {part} {minus}{scores['metric']} of {task}: {scores['mean']:.4f}{sd}")
    recipe = shlex.quote(found.place.file("winner.yaml"))
    out.print(f"  fit it again:      llmembed fit {recipe}")
    if "registered" in found.test:
        out.print(
            f"  label your texts:  llmembed predict --model {found.test['registered']} "
            "--data FILE.csv --output labels.csv"
        )
        out.print(
            f"  put it online:     llmembed serve {found.test['registered']}{files_option(sweep)}"
        )
    out.print(f"  see every run:     {ui_command}")


def files_option(sweep: Sweep) -> str:
    files = sweep.runtime.files
    return "" if files == "llmembed-files" else f" --files {shlex.quote(files)}"
