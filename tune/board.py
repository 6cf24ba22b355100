"""Configurations ranked on validation, the Pareto front, and the table on the terminal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune.ledger import AnyConfiguration, Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 8
TIE = 1e-9
"""Means closer than this are equal."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One configuration over its fits that went well. ``accuracy``: the mean of what they are
    worth under the sweep's metric; ``figures``: means over them."""

    configuration: AnyConfiguration
    seeds: int
    accuracy: float
    sd: float | None
    figures: Mapping[str, float]


def standings(records: Mapping[str, Record]) -> list[Standing]:
    """Best mean on validation first, under the sweep's metric; ties go to fewer parameters.
    Configurations of which a fit failed are no candidates: the next seed might fail too."""
    fits: dict[AnyConfiguration, list[Record]] = {}
    for record in records.values():
        fits.setdefault(record.planned.configuration, []).append(record)
    found = []
    for configuration, own in fits.items():
        if any(record.status != "ok" for record in own):
            continue
        values = [record.figures["valid_accuracy"] for record in own]
        # A figure that one seed lacks (a latency that could not be measured) has no mean.
        names = [n for n in own[0].figures if all(n in record.figures for record in own)]
        found.append(
            Standing(
                configuration=configuration,
                seeds=len(own),
                accuracy=statistics.fmean(values),
                sd=statistics.stdev(values) if len(values) > 1 else None,
                figures={n: statistics.fmean(r.figures[n] for r in own) for n in names},
            )
        )
    return sorted(found, key=lambda s: (-s.accuracy, s.figures["parameters"], s.configuration.id))


def pareto(found: Sequence[Standing], objective: str) -> list[Standing]:
    """Those that no other beats in accuracy without more of ``objective``, cheapest first."""
    kept: list[Standing] = []
    known = [each for each in found if objective in each.figures]
    for each in sorted(known, key=lambda s: (s.figures[objective], -s.accuracy)):
        if not kept or each.accuracy > kept[-1].accuracy + TIE:
            kept.append(each)
    return kept


def words(configuration: AnyConfiguration, others: Sequence[AnyConfiguration]) -> str:
    """What tells ``configuration`` from the others, in a line."""
    everyone: Any = [*others, configuration]  # of one sweep, so of one kind
    own = configuration.differing(everyone)
    own.pop("fusion", None)
    rest = " ".join(f"{key}={_short(value)}" for key, value in own.items())
    return f"{configuration.title} {rest}".strip()


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(found: Sequence[Standing], objective: str | None, *, rows: int = SHOWN) -> Table:
    """The best so far."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    column = objective or "parameters"
    for name in ("", "configuration", "valid", "sd", "seeds", column):
        made.add_column(name, justify="left" if name == "configuration" else "right")
    everyone = [each.configuration for each in found]
    for rank, each in enumerate(found[:rows], start=1):
        made.add_row(
            str(rank),
            words(each.configuration, everyone),
            f"{each.accuracy:.4f}",
            "" if each.sd is None else f"{each.sd:.4f}",
            str(each.seeds),
            f"{figure:,.6g}" if (figure := each.figures.get(column)) is not None else "",
        )
    return made


class Live:
    """The table of best configurations, progress and time left while trials run.

    On a terminal it is drawn over itself; elsewhere a line is printed now and then.
    """

    def __init__(self, out: Console, total: int, objective: str | None) -> None:
        self._out, self._total, self._objective = out, total, objective
        self._done = self._failed = self._running = 0
        self._start = self._last = time.monotonic()
        self._found: Sequence[Standing] = ()
        self._live: Any = None

    def __enter__(self) -> Live:
        if self._out.is_terminal:
            from rich.live import Live as RichLive

            self._live = RichLive(
                console=self._out, get_renderable=self._frame, refresh_per_second=2, transient=True
            )
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def _frame(self) -> Any:
        from rich.console import Group

        return (
            Group(self.line(), table(self._found, self._objective)) if self._found else self.line()
        )

    def tick(self, running: int) -> None:
        """Called again and again while trials run."""
        self._running = running
        self._say(every=60)

    def heard(self, record: Record, records: Mapping[str, Record]) -> None:
        """One more fit is over."""
        self._done += 1
        self._failed += record.status == "failed"
        self._found = standings(records)
        self._say(every=0 if self._done == self._total else 5)

    def _say(self, *, every: float) -> None:
        """A line of its own where there is no terminal, at most one in ``every`` seconds."""
        if self._live is None and time.monotonic() - self._last >= every:
            self._last = time.monotonic()
            self._out.print(self.line())

    def line(self) -> str:
        """Progress in words."""
        spent = time.monotonic() - self._start
        left = spent / self._done * (self._total - self._done) if self._done else 0.0
        best = self._found[:1]
        said = f"{self._done} of {self._total} fits, {self._running} trials running"
        said += f", {self._failed} failed" if self._failed else ""
        said += f", {_clock(spent)} so far, about {_clock(left)} left"
        if best:
            said += f"; best {best[0].accuracy:.4f} {best[0].configuration.title}"
        return said


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
