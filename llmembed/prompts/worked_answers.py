"""The label at the end of an answer that first gives clues and reasoning, and how sure it is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from llmembed.prompts.json_in_prose import after_thoughts

LINE_CUE = re.compile(
    r"^[\s>*#\"'`-]*(?:final\s+|my\s+)?(?:label|answer|category|class|output)[\s*\"'`]*[:=][ \t*]*",
    re.IGNORECASE | re.MULTILINE,
)
INNER_CUE = re.compile(r"\b(?:label|answer|category)[\s*\"'`]*:[ \t*]*", re.IGNORECASE)
REASONING_CUE = re.compile(r"^[\s>*#\"'`-]*reasoning[\s*\"'`]*[:=]", re.IGNORECASE | re.MULTILINE)


def label_span(answer: str) -> tuple[int, int] | None:
    """Where the line after the cue ``Label:`` starts and ends in ``answer``, None without one.

    The first cue after the reasoning counts: a model that goes on writes further examples, and
    their labels are not this text's.
    """
    reasoning = REASONING_CUE.search(answer)
    start = reasoning.end() if reasoning else 0
    cue = LINE_CUE.search(answer, start)
    if cue is None:
        cue = next(iter([*INNER_CUE.finditer(answer, start)][-1:]), None)
    if cue is None:
        return None
    said = re.compile(r"\s*([^\n]*\S)").match(answer, cue.end())
    return said.span(1) if said else None


def label_text(answer: str) -> str:
    """What stands after the cue ``Label:``; all of ``answer`` where there is no such cue."""
    span = label_span(answer)
    return answer if span is None else answer[slice(*span)]


def label_probability(
    logprobs: Sequence[tuple[str, float]] | None, names: Sequence[str]
) -> float | None:
    """Probability of the label's own tokens as they were written, in (0, 1]; None without
    log-probabilities or label. ``names``: what the label may be called."""
    if not logprobs:
        return None
    written = "".join(token for token, _ in logprobs)
    proper, cut = after_thoughts(written)
    span = label_span(written[proper:cut])
    if span is None:
        return None
    start, end = proper + span[0], proper + span[1]
    line = written[start:end].casefold()
    for name in sorted(names, key=len, reverse=True):
        if (place := line.find(name.casefold())) >= 0:
            start, end = start + place, start + place + len(name)
            break
    total, at = 0.0, 0
    for token, logprob in logprobs:
        if at < end and at + len(token) > start:
            total += logprob
        at += len(token)
    return min(1.0, math.exp(total))
