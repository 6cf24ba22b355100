"""Any registered classifier online, on Ray Serve.

::

    client ──► HAProxy ──► Ingress replica ─────────────────────► answer
                           (FastAPI, heads, small backbones)
                                   └──► large backbones, deployments of their own

``llmembed serve NAME``, ``serve run serve.app:app model=NAME`` and ``serve deploy
serve/config.yaml`` start the same application. Start reading at
``model/server.py``: what one replica does; it knows nothing of Ray. ``app.py`` puts it on Ray
Serve, which is imported there and in ``starting.py`` and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.settings import ServeSettings, load_settings
    from serve.starting import start

_PUBLIC = {"ServeSettings": "settings", "load_settings": "settings", "start": "starting"}
__all__ = ["ServeSettings", "load_settings", "start"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(f"serve.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
