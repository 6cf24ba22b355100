"""The leaderboard as a table: for a terminal of 100 columns, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from llmembed.evaluation.choice import beside, chosen_by
from llmembed.evaluation.disagreement import ITEM, Disagreement
from llmembed.evaluation.open_sets import told_of_other
from llmembed.evaluation.paired import Comparison
from llmembed.evaluation.result import STOPPED, Result
from llmembed.evaluation.rows import Row, Spread
from llmembed.evaluation.selective import promise
from llmembed.evaluation.wording import fraction
from llmembed.metrics import shown_name

if TYPE_CHECKING:
    from rich.console import RenderableType

NONE = "–"


class Board(Protocol):
    """What of a ``Leaderboard`` is shown."""

    @property
    def corpus(self) -> str: ...

    @property
    def partial(self) -> str | None: ...

    @property
    def primary(self) -> Mapping[str, str]: ...

    @property
    def rows(self) -> Sequence[Row]: ...

    @property
    def winner(self) -> Row | None: ...

    @property
    def winner_result(self) -> Result | None: ...

    @property
    def comparisons(self) -> Sequence[Comparison]: ...

    @property
    def results(self) -> Sequence[Result]: ...

    @property
    def disagreement(self) -> Disagreement | None: ...


def terminal(board: Board) -> RenderableType:
    """Two lines a row, so that every figure fits; reasons and provisos stand below."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    split = "test" if any(row.test for row in board.rows) else "validation"
    several = len(board.primary) > 1
    table = Table(
        title=f"{board.corpus}: best validation mean first",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("method", min_width=14, overflow="fold")
    for task, metric in board.primary.items():
        name = shown_name(metric)
        table.add_column(f"{task}\n{name}" if several else f"{split} {name}\n[95 % interval]")
    if several:
        table.add_column(f"{split}\nmean")
    table.add_column("valid mean\n± s.e." if several else "valid\n± s.e.")
    heads = ("seconds\ninvalid", "kWh\nUSD", "p50 ms\np99 ms", "trained\ntokens")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    winner = board.winner
    for row in board.rows:
        won = winner is not None and row is winner
        cells = [Text(f"{'★ ' if won else '  '}{row.label}\n  {_state(row)}")]
        cells += [Text(_score(row, task, several)) for task in board.primary]
        if several:
            cells.append(Text(_stacked(row.shown_mean)))
        cells.append(Text(_stacked(_by_error(row))))
        cells += [
            Text(f"{_seconds(row.seconds)}\n{_percent(row.invalid_rate)}"),
            Text(f"{_energy(row)}\n{_small(row.cost_usd)}"),
            Text(f"{_milliseconds(row.latency_p50_ms)}\n{_milliseconds(row.latency_p99_ms)}"),
            Text(f"{_count(row.parameters_trained)}\n{_count(row.tokens)}"),
        ]
        style = "bold" if won else ("" if row.eligible else "dim")
        table.add_row(*cells, style=style, end_section=False)
    below = [Text(line, style="dim") for line in provisos(board)]
    if board.disagreement is not None:
        words = "\n".join(board.disagreement.lines())
        below += [Text(), Text(words, style="yellow")]
    return Group(table, *below)


def markdown(board: Board) -> str:
    """One line a row, every figure in a column of its own; reasons and provisos below."""
    several = len(board.primary) > 1
    split = "test" if any(row.test for row in board.rows) else "validation"
    heads = ["method"]
    for task, metric in board.primary.items():
        name = f"{task} {shown_name(metric)}"
        heads += [f"{split} {name} ± sd", f"95 % interval{f' of {task}' if several else ''}"]
    heads += [f"{split} mean"] if several else []
    heads += ["validation mean ± s.e.", "invalid", "seconds", "energy kWh", "cost USD"]
    heads += ["p50 ms", "p99 ms", "parameters trained", "tokens", "calls", "seeds", "status"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    winner = board.winner
    for row in board.rows:
        won = winner is not None and row is winner
        cells = [f"**{row.label}**" if won else row.label]
        for task in board.primary:
            cells += [_plus_minus(row.shown.get(task)), _interval(row, task)]
        cells += [_plus_minus(row.shown_mean)] if several else []
        cells += [
            _plus_minus(_by_error(row)),
            _percent(row.invalid_rate),
            _seconds(row.seconds),
            _energy(row),
            _small(row.cost_usd),
            _milliseconds(row.latency_p50_ms),
            _milliseconds(row.latency_p99_ms),
            _count(row.parameters_trained),
            _count(row.tokens),
            _count(row.calls),
            str(row.seeds),
            row.status + (" (machinery only)" if row.machinery_only else ""),
        ]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    said = provisos(board) + (board.disagreement.lines() if board.disagreement else [])
    bullets = (line if line.startswith(ITEM) else f"- {line}" for line in said)
    return "\n".join([*lines, "", *bullets]) + "\n"


def provisos(board: Board) -> list[str]:
    """What must be read with the figures."""
    lines = []
    if board.partial:
        lines.append(f"Data: {board.corpus} is partial: {board.partial}.")
    winner = board.winner
    if winner:
        lines.append(
            f"Winner: {winner.label}, {chosen_by(board.winner_result)}; test was read once a fit."
        )
        lines += beside(winner.label, board.comparisons)
        result = board.winner_result
        for task, selective in result.selective.items() if result else ():
            lines.append(f"{winner.label}, {task}: {promise(selective)}.")
        for task, scores in (result.test or result.valid).items() if result else ():
            if (said := told_of_other(scores)) is not None:
                lines.append(f"{winner.label}, {task}: {said}.")
    elif board.rows:
        lines.append("No winner: no row is fitted, sound, complete and on real weights.")
    if any(row.energy_is_estimated for row in board.rows):
        lines.append(
            "~ energy, and its cost, are estimates, not measured: of declared power, or a share "
            "of a GPU on which others compute too."
        )
    for row in board.rows:
        if row.status != "ok":
            lines.append(f"{row.label}: {row.status.rstrip(chr(46))}.{_until_then(row)}")
        if row.machinery_only:
            lines.append(
                f"{row.label}: machinery only, an untrained model or a scripted server; "
                "its figures show that it runs and nothing else."
            )
        lines += [f"{row.label}: {note}." for note in row.notes]
    return lines


def _until_then(row: Row) -> str:
    """What a failed row asked a language model for, all the same."""
    if row.seeds or not row.calls or not row.status.startswith("failed"):
        return ""
    return (
        f" Until then it took {_count(row.calls)} calls, {_count(row.tokens)} tokens and "
        f"{_small(row.cost_usd)} USD."
    )


def _state(row: Row) -> str:
    if row.status.startswith(STOPPED):
        return row.status.partition(":")[0]
    if row.machinery_only:
        return "machinery only"
    if row.status != "ok":
        return row.status
    if row.deterministic:
        return "deterministic"
    return f"{row.seeds} seed{'s' if row.seeds != 1 else ''}"


def _score(row: Row, task: str, several: bool) -> str:
    spread = row.shown.get(task)
    if several or spread is None:
        return _stacked(spread)
    sd = "" if spread.sd is None else f" ±{fraction(spread.sd)}"
    return f"{fraction(spread.mean)}{sd}\n{_interval(row, task)}"


def _stacked(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    return fraction(spread.mean) + ("" if spread.sd is None else f"\n±{fraction(spread.sd)}")


def _by_error(row: Row) -> Spread | None:
    """The validation mean with its standard error."""
    return row.valid_mean and Spread(mean=row.valid_mean.mean, sd=row.valid_error)


def _plus_minus(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    return f"{spread.mean:.4f}" + ("" if spread.sd is None else f" ± {spread.sd:.4f}")


def _interval(row: Row, task: str) -> str:
    interval = row.interval.get(task)
    return NONE if interval is None else f"[{fraction(interval.low)} {fraction(interval.high)}]"


def _percent(share: float | None) -> str:
    if share is None:
        return NONE
    return f"{100 * share:.1f}%" if share else "0%"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _energy(row: Row) -> str:
    if row.energy_kwh is None:
        return NONE
    return ("~" if row.energy_is_estimated else "") + _small(row.energy_kwh)


def _small(value: float | None) -> str:
    """Three digits, at most eight characters."""
    if value is None:
        return NONE
    if value == 0 or value >= 0.001:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def _count(value: float | None) -> str:
    if value is None:
        return NONE
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"
