"""Work on the actors of a Ray cluster."""

from __future__ import annotations


class RayRuntime:
    pass
