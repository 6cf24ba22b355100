"""What ``predict`` did, and the lines that say it."""

from __future__ import annotations

from dataclasses import dataclass

from llmembed.contract import Usage
from llmembed.pipelines.console import console
from llmembed.texts.columns import printable

REFUSED_SAID = 5
"""Refused texts that are named on the terminal; --json names all."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What ``predict`` did: ``rows`` labelled in all, ``reused_rows`` of them by an earlier run;
    ``bad_rows`` were set aside in ``quarantine``. ``unread_rows`` of all got no answer that could
    be read: their label is empty; ``refused`` tells which of those labelled now were refused, and
    why. ``unanswered_rows`` got no answer at all: the chunks they are in, ``open_rows`` rows, are
    not among the labelled. ``paid``: what an endpoint was really asked now, at ``paid_usd``;
    answers from the cache cost nothing."""

    rows: int
    reused_rows: int
    bad_rows: int
    unread_rows: int
    unanswered_rows: int
    open_rows: int
    refused: tuple[str, ...]
    seconds: float
    usage: Usage
    paid: Usage
    paid_usd: float
    output: str
    quarantine: str


def say(result: Predicted) -> None:
    out = console()
    where = f" -> {result.output}" if not result.unanswered_rows else ""
    out.print(f"labelled {result.rows:,} texts in {result.seconds:.1f} s{where}")
    if result.open_rows:
        out.print(f"{result.open_rows:,} texts are still to be labelled")
    if result.reused_rows:
        out.print(f"{result.reused_rows:,} of them were labelled by an earlier run")
    if result.paid.calls or result.paid_usd:
        tokens = result.paid.prompt_tokens + result.paid.completion_tokens
        out.print(
            f"asked in {result.paid.calls:,} calls and {tokens:,} tokens, "
            f"about {result.paid_usd:.4g} USD"
        )
    if result.unread_rows:
        out.print(f"{result.unread_rows:,} texts got no readable answer: their label is empty")
    for words in result.refused[:REFUSED_SAID]:
        out.print(f"refused: {printable(words, 600)}", soft_wrap=True, markup=False)
    if len(result.refused) > REFUSED_SAID:
        out.print(f"and {len(result.refused) - REFUSED_SAID:,} more were refused")
    if result.bad_rows:
        out.print(
            f"{result.bad_rows:,} bad rows set aside in {result.quarantine}, with their reasons"
        )
