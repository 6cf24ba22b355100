"""A corpus made up by a seed: words drawn by class, classes of unequal size."""

from __future__ import annotations

import numpy as np

from llmembed.contract import Examples, Task
from llmembed.texts import Corpus

CLASSES = ("sport", "trade", "music", "rain")
SHARES = (0.4, 0.3, 0.2, 0.1)


def made_up(*, seed: int, train: int = 300, held: int = 150, partial: str | None = None) -> Corpus:
    rng = np.random.default_rng(seed)
    words = np.array([f"w{i}" for i in range(120)])
    habits = rng.dirichlet(np.full(len(words), 0.35), size=len(CLASSES))

    def drawn(n: int) -> Examples:
        labels = rng.choice(len(CLASSES), size=n, p=SHARES)
        lengths = rng.integers(3, 9, size=n)
        texts = [
            " ".join(rng.choice(words, size=length, p=0.75 * habits[label] + 0.25 / len(words)))
            for label, length in zip(labels, lengths, strict=True)
        ]
        return Examples(texts=texts, labels={"topic": labels})

    return Corpus(
        name="made-up",
        tasks=(Task(name="topic", classes=CLASSES),),
        train=drawn(train),
        valid=drawn(held),
        test=drawn(held),
        digest=f"seed-{seed}",
        partial=partial,
    )
