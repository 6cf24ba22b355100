"""Whether a tokenizer knows the words of the texts that are to be embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmembed.errors import ModelError

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec

SAMPLE = 64
"""Texts that are looked at, in this process, before any worker starts."""
FEWEST = 32
"""Fewer say nothing of the tokenizer: they may be a handful of emoji."""
MAX_UNKNOWN = 0.9


def check_words(spec: BackboneSpec, texts: Sequence[str]) -> None:
    """Raise ``ModelError`` where nearly every token of ``texts`` is the unknown one: whatever they
    say, the model would read the same."""
    from llmembed.backbones import Tokeniser

    if len(texts) < FEWEST:
        return
    tokeniser = Tokeniser(spec)
    unknown = tokeniser.tokenizer.unk_token_id
    if unknown is None or unknown == tokeniser.tokenizer.eos_token_id:  # GPT-2's: it knows all
        return
    tokens = tokeniser(texts)
    head, tail = tokeniser.around
    windows = [tokens.window(place) for place in range(len(tokens.window_lengths))]
    ids = np.concatenate([window[head : len(window) - tail] for window in windows])
    share = float((ids == unknown).mean()) if len(ids) else 0.0
    if share > MAX_UNKNOWN:
        raise ModelError(
            f"the tokenizer of {spec.label} knows hardly any word of these texts ({share:.0%} of "
            f"the tokens of the first {len(texts)} are {tokeniser.tokenizer.unk_token!r}): take a "
            "model of their language, or put the files of its own tokenizer beside its weights"
        )
