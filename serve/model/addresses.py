"""What a model is called: a folder, or a registered name with an alias or a version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmembed.errors import ModelError
from llmembed.pipelines.models import REGISTERED

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, kw_only=True)
class Address:
    """One model: of ``folder``, ``alias`` and ``version`` at most one is set."""

    name: str
    alias: str | None = None
    version: int | None = None
    folder: Path | None = None

    @classmethod
    def parse(cls, model: str) -> Address:
        """Raises ``ModelError``."""
        folder = Path(model)
        if folder.is_absolute() and folder.is_dir():
            return cls(name=folder.name, folder=folder)
        found = cls.registered(model)
        if found is None:
            raise ModelError(
                f"there is no folder {model!r}, and it is no registered model either: "
                "write a folder, NAME, models:/NAME@champion or models:/NAME/VERSION"
            )
        return found

    @classmethod
    def registered(cls, model: str) -> Address | None:
        """By its registered name alone; None for what is no such name."""
        found = REGISTERED.match(model)
        if found is None:
            return None
        version = None if found["version"] is None else int(found["version"])
        alias = found["alias"] or (CHAMPION if version is None else None)
        return cls(name=found["name"], alias=alias, version=version)

    @property
    def key(self) -> str:
        """What requests call it; the champion by its name alone."""
        if self.alias in (None, CHAMPION) and self.version is None:
            return self.name
        return f"{self.name}@{self.alias}" if self.alias else f"{self.name}/{self.version}"

    @property
    def uri(self) -> str:
        """What ``pipelines.models.find_classifier`` takes."""
        if self.folder is not None:
            return str(self.folder)
        at = f"@{self.alias}" if self.alias else f"/{self.version}"
        return f"models:/{self.name}{at}"
