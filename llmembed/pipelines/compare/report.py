"""``report`` prints a stored leaderboard again; ``recipes`` lists the ready experiments."""

from __future__ import annotations

import json

import yaml

from llmembed.errors import ConfigError, DataError
from llmembed.experiment import recipes
from llmembed.pipelines.console import console, write_json
from llmembed.pipelines.runtime import files_folder


def report(
    leaderboard: str | None,
    *,
    files: str | None = None,
    markdown: bool = False,
    json_path: str | None = None,
) -> None:
    """Print the leaderboard in the file ``leaderboard``, or the newest one stored."""
    from llmembed.embeddings import Folder
    from llmembed.evaluation import Leaderboard

    if leaderboard is None:
        folder = Folder(files_folder(files)).child("leaderboards")
        stored = sorted(name for name in folder.names() if name.endswith(".json"))
        if not stored:
            raise DataError(
                f"no leaderboard in {folder.address} yet: `llmembed compare` stores one"
            )
        place, name = folder, stored[-1]
    else:
        base, mark, options = leaderboard.partition("?")
        parent, slash, name = base.rpartition("/")
        place = Folder((parent or slash or ".") + mark + options)
    address = leaderboard or f"{place.address}/{name}"
    try:
        content = json.loads(place.read(name))
        board = Leaderboard.from_json(content)
    except FileNotFoundError:
        raise DataError(f"there is no file {address}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{address} is not a leaderboard that `llmembed compare` wrote") from None
    if markdown:
        print(board.to_markdown())
    else:
        console().print(board)
    write_json(json_path, content)


def show_recipes(name: str | None = None, *, json_path: str | None = None) -> None:
    """List the recipes, or print one as YAML."""
    known = recipes()
    if name is not None and name not in known:
        raise ConfigError(f"no recipe {name!r}; known are {', '.join(known)}")
    if name is not None:
        print(known[name].read_text(encoding="utf-8"), end="")
        return
    described = {
        recipe: yaml.safe_load(path.read_text(encoding="utf-8")).get("description", "")
        for recipe, path in known.items()
    }
    for recipe, description in described.items():
        print(f"{recipe:<{max(map(len, known))}}  {description}")
    print("\nllmembed recipes NAME shows one; copy it to a file to change it.")
    write_json(json_path, described)
