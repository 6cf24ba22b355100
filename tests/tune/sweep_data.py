"""A small labelled csv and the settings of a small sweep over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WORDS = {
    "oil": "oil price supply rose",
    "grain": "grain exports fell talks",
    "bank": "banks cut rates after",
}


def write_csv(path: Path, *, rows: int = 300) -> Path:
    """Texts whose words follow from their topic, with a few words of others."""
    rng = np.random.default_rng(0)
    lines = ["text,topic"]
    everything = " ".join(WORDS.values()).split()
    for i in range(rows):
        topic = list(WORDS)[i % 3]
        own = [str(w) for w in rng.choice(WORDS[topic].split(), 6)]
        other = [str(w) for w in rng.choice(everything, 4)]
        lines.append(f"{' '.join(own + other)} n{i},{topic}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def settings(data: Path, model: Path, files: Path, **more: Any) -> dict[str, Any]:
    """Dotted settings of a sweep over ``data``."""
    return {
        "data.source": str(data),
        "data.labels": {"topic": "topic"},
        "backbones": {"encoder": {"model": str(model), "dtype": "float32", "max_tokens": 24}},
        "views": {"L": "encoder mean:1-2", "B": "encoder pooler", "R": "encoder cls:1"},
        "runtime.files": str(files),
        "head": {"widths": [16], "epochs": 15, "patience": 4},
        "search.final_seeds": 2,
        "search.finalists": 1,
        "search.seeds": 1,
        **more,
    }


def overrides(given: dict[str, Any]) -> list[str]:
    """The same as words of a command line (JSON is YAML)."""
    import json

    return [f"{key}={json.dumps(value)}" for key, value in given.items()]
