"""Answers so many prompts with a local model: started by a test, and killed by it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tiny_llama import TEXTS

from llmembed.generation import LocalGenerator, Message, Prompt, ResponseCache, Sampling

SYSTEM = Message(role="system", content=f"{TEXTS[2]}. {TEXTS[3]}")


def prompts(count: int) -> list[Prompt]:
    words = " ".join(TEXTS[:2]).split()
    return [
        (
            SYSTEM,
            Message(
                role="user",
                content=" ".join([f"n{i}", *(words[(i * 5 + k * k) % 29] for k in range(i % 17))])
                + "\nLabel:",
            ),
        )
        for i in range(count)
    ]


def make(folder: Path, **settings: Any) -> LocalGenerator:
    return LocalGenerator(**{"model": str(folder), "dtype": "float32", **settings})


if __name__ == "__main__":
    folder, path, count = sys.argv[1:]
    generator = make(Path(folder), cache=ResponseCache(path), chunk_prompts=4)
    generator.generate(prompts(int(count)), Sampling(max_tokens=6))
