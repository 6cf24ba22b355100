"""``first``: the primary view's last depth beside all other views."""

from __future__ import annotations

from llmembed.fusion import EVERY, FusionSpec

FIRST = FusionSpec(
    number=None, module="llmembed.fusion.depths:Depths", depths="last", beside=(EVERY,)
)
