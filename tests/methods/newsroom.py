"""A small labelled world: three topics, each with words of its own, and a rule that reads them."""

from __future__ import annotations

import numpy as np
from scripted_generator import asked_text, whole

from llmembed.contract import Examples, Task

WORDS = {"oil": "oil supply price", "grain": "grain exports", "banks": "banks rates cut"}
TOPIC = Task(name="topic", classes=tuple(WORDS))


def news(count: int, seed: int = 0) -> Examples:
    """Distinct texts of words of their topic; topics by turns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(WORDS)
    names = list(WORDS)
    texts = [
        " ".join(rng.choice(WORDS[names[label]].split(), size=3 + i % 5)) + f" s{seed}n{i}"
        for i, label in enumerate(labels)
    ]
    return Examples(texts=texts, labels={"topic": labels.astype(np.int64)})


def topic_of(text: str) -> str:
    """What someone who can read would answer."""
    found = text.split()
    hits = {name: sum(map(found.count, words.split())) for name, words in WORDS.items()}
    return max(hits, key=lambda name: hits[name])


def reader_rule(prompt, sampling):
    """Answers any of our prompts rightly, without ever having seen a label."""
    text, said = asked_text(prompt), whole(prompt)
    if said.endswith("OUTPUT:"):
        text = text.removeprefix("INPUT: ")
    topic = topic_of(text)
    if prompt[-1].content.endswith("Reasoning:"):
        return f"Reasoning: these words speak of {topic}"
    if prompt[-1].content.endswith("Clues:"):
        if "has the label" in said:
            return "Clues: " + ";\n".join(text.split()[:2])
        return f"{text}\nReasoning: so it goes\nLabel: {topic}"
    return topic
