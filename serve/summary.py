"""What ``llmembed serve`` prints once it answers."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve.settings import ServeSettings


def say_ready(out: Console, where: str, settings: ServeSettings) -> None:
    """Addresses, the models with their versions, and a request to try."""
    variable = settings.api_key_env
    key = os.environ.get(variable, "") if variable else ""
    request = urllib.request.Request(f"{where}/info")
    if key:
        request.add_header("authorization", f"Bearer {key.strip()}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        info: dict[str, Any] = json.load(answer)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "version", "method", "answers", "backbones"):
        table.add_column(column)
    for model in info["models"]:
        tasks = ", ".join(f"{task['name']} ({len(task['classes'])})" for task in model["tasks"])
        stands = ", ".join(f"{name} {place}" for name, place in model["backbones"].items())
        version = str(model["version"] or "folder")
        table.add_row(
            escape(model["name"]), version, model["method"], escape(tasks), escape(stands or "none")
        )
    out.print(table)
    out.print()
    out.print(f"  try it:      {where}/")
    if settings.docs:
        out.print(f"  every call:  {where}/docs")
    out.print(f"  figures:     {where}/metrics")
    bearer = f' -H "authorization: Bearer ${variable}"' if key else ""
    out.print(
        f"  ask:         curl {where}/predict{bearer} -H 'content-type: application/json' "
        '-d \'{"inputs": "a text"}\'',
        soft_wrap=True,
        markup=False,
    )
    if not key and variable:
        out.print(f"  no key is asked for; set {variable} to ask for one", style="dim")
    out.print("Ctrl-C stops it.", style="dim")
