"""``report`` prints a stored leaderboard again; ``recipes`` lists the ready experiments."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from llmembed.errors import ConfigError, DataError
from llmembed.experiment import recipes
from llmembed.pipelines.assembly import files_folder
from llmembed.pipelines.printing import console, write_json


def report(
    leaderboard: str | None,
    *,
    files: str | None = None,
    markdown: bool = False,
    json_path: str | None = None,
) -> None:
    """Print the leaderboard in the file ``leaderboard``, or the newest one stored."""
    from llmembed.evaluation import Leaderboard

    folder = Path(files_folder(files)) / "leaderboards"
    if leaderboard is None:
        stored = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        if not stored:
            raise DataError(f"no leaderboard in {folder} yet: `llmembed compare` stores one")
        path = stored[-1]
    else:
        path = Path(leaderboard)
        if not path.is_file():
            raise DataError(f"there is no file {leaderboard}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        board = Leaderboard.from_json(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is not a leaderboard that `llmembed compare` wrote") from None
    if markdown:
        print(board.to_markdown())
    else:
        console().print(board)
    write_json(json_path, content)


def show_recipes(name: str | None = None) -> None:
    """List the recipes, or print one as YAML."""
    known = recipes()
    if name is None:
        width = max(map(len, known))
        for recipe, path in known.items():
            description = yaml.safe_load(path.read_text(encoding="utf-8")).get("description", "")
            print(f"{recipe:<{width}}  {description}")
        print("\nllmembed recipes NAME shows one; copy it to a file to change it.")
        return
    if name not in known:
        raise ConfigError(f"no recipe {name!r}; known are {', '.join(known)}")
    print(known[name].read_text(encoding="utf-8"), end="")
