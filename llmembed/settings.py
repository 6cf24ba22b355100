"""The base of all settings: unknown keys are refused, values are checked and never changed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A group of settings as YAML and the command line may give it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
