"""Tables of what is known by name, to which installed packages may add lines.

A package adds one by an entry point of the table's group, in its pyproject.toml::

    [project.entry-points."llmembed.methods"]
    centroid = "my_package.settings:CentroidSettings"

Entry points are looked at when a table is first listed or asked for a name that is not ours. One
that can't be loaded is left out, with a sentence in ``broken``; the others work.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Generic, TypeVar

T = TypeVar("T")
GROUPS = ("llmembed.methods", "llmembed.fusions", "llmembed.benchmarks", "llmembed.backbones")


@cache
def _installed() -> Mapping[str, list[EntryPoint]]:
    """Group -> entry points, of all installed packages, looked at once."""
    found = entry_points()
    return {group: sorted(found.select(group=group), key=lambda e: e.name) for group in GROUPS}


class Table(Mapping[str, T], Generic[T]):
    """Name -> what it stands for: ``own`` lines first, in their order, then those of packages.

    ``own``: objects, or ``module:attribute`` of one, imported when first asked for. ``check``
    returns why an object can't be called ``name`` in this table, or None.
    """

    def __init__(
        self, group: str, own: Mapping[str, T | str], *, check: Callable[[str, object], str | None]
    ) -> None:
        self.group = group
        self.broken: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self._own, self._check = dict(own), check
        self._loaded: dict[str, T] = {}
        self._added: dict[str, T] | None = None
        self._filling = RLock()

    def __getitem__(self, name: str) -> T:
        if name in self._own:
            return self._ours(name)
        return self.added[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *self.added])

    def __len__(self) -> int:
        return len(self._own) + len(self.added)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self.added

    @property
    def added(self) -> Mapping[str, T]:
        """The lines of installed packages; ``sources`` names the package of each."""
        with self._filling:
            if self._added is None:
                added: dict[str, T] = {}
                for entry in _installed()[self.group]:
                    self._add(entry, added)
                self._added = added
            return self._added

    @property
    def own(self) -> Mapping[str, T]:
        """Our lines alone."""
        return {name: self._ours(name) for name in self._own}

    def why_not(self, name: str) -> str | None:
        """Why a name that a package would add is not known, or None."""
        return next(
            (f"{k}: {v}" for k, v in self.broken.items() if k.startswith(f"{name} of ")), None
        )

    def _ours(self, name: str) -> T:
        if name not in self._loaded:
            line = self._own[name]
            if isinstance(line, str):
                module, _, attribute = line.partition(":")
                line = getattr(importlib.import_module(module), attribute)
            self._loaded[name] = line
        return self._loaded[name]

    def _add(self, entry: EntryPoint, added: dict[str, T]) -> None:
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
        if entry.name in self._own or entry.name in added:
            whose = self.sources.get(entry.name, "llmembed")
            self.broken[f"{entry.name} of {package}"] = f"{whose} has one of that name already"
            return
        try:
            made = entry.load()
            wrong = self._check(entry.name, made)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does when imported
            words = " ".join(str(error).split())
            wrong = f"{entry.value} can't be loaded: {type(error).__name__}: {words[:300]}"
        if wrong is None:
            added[entry.name] = made
            self.sources[entry.name] = package
        else:
            self.broken[f"{entry.name} of {package}"] = wrong
