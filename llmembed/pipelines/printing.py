"""The terminal, and the same figures as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """Where results are printed; figures are left as they are, without colouring."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, stderr=stderr)


def write_json(path: str | None, figures: Any) -> None:
    """Write ``figures`` to ``path`` when the user asked for it."""
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
