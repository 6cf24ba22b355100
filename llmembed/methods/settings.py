"""What every method's settings say beside what they set: its cost, what it reads, how it is built.

The settings of a family stand beside its methods, in ``FAMILY/settings.py``; importing them loads
neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field, TypeAdapter

from llmembed.errors import ConfigError
from llmembed.mistakes import suggest
from llmembed.settings import Settings
from llmembed.usage import Usage

if TYPE_CHECKING:
    import numpy.typing as npt

    from llmembed.backbones import View
    from llmembed.contract import Classifier, Method, Prediction
    from llmembed.generation import Generator

Fits = Callable[[], Mapping[int, "Classifier"]]
"""Seed -> classifier of a method that was fitted before, at least one (a method that is the same
under every seed has seed 0 alone). Called while another is being fitted; raises ``ConfigError``
where none came to its end."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """By task what a method's fits answered to texts that they had not seen: to ``rows`` int64 (H,)
    of the training and validation texts together, in that order. ``shared``: as in
    ``folds.CrossFitted``."""

    rows: npt.NDArray[Any]
    answers: Mapping[str, Prediction]
    shared: Usage


@dataclass(frozen=True, kw_only=True)
class Source:
    """What became of a method; both are called while another is being fitted, and raise
    ``ConfigError`` where it did not come to its end. ``machinery_only``: it runs on stand-in
    weights, so that its figures say nothing."""

    fits: Fits
    left_out: Callable[[], LeftOut]
    machinery_only: bool = False


class Parts(Protocol):
    """What an experiment gives a method that is built. ``key``: where in the experiment something
    is asked for, for messages. All raise ``ConfigError`` for names that there are not."""

    @property
    def benchmark(self) -> str | None:
        """The benchmark whose texts are labelled, None for other data."""
        ...

    @property
    def views(self) -> Mapping[str, str]:
        """The experiment's named views, name -> `backbone reads`; without those that their model
        can't give."""
        ...

    def view(self, words: str, key: str) -> View:
        """The view that ``words`` say, `backbone reads`."""
        ...

    def generator(self, name: str, key: str) -> Generator:
        """The language model that the experiment calls ``name``."""
        ...

    def method(self, which: str | MethodSettings, key: str) -> Method:
        """Another method, by its name in the experiment or by its settings."""
        ...

    def fits(self, name: str, key: str) -> Fits:
        """What became of a method that ``methods_needed`` names."""
        ...

    def source(self, name: str, key: str) -> Source:
        """As ``fits``, and what these answered to texts that were left out of them."""
        ...


class MethodSettings(Settings):
    """Base of all methods' settings. A method's own have ``kind: Literal[...]``, the name by which
    ``METHODS`` knows them."""

    kind: str
    cost: ClassVar[int]
    """Where the method stands when cheap ones are fitted first; ours are 0 to 100."""
    classifier: ClassVar[str]
    """``module:class`` whose ``load`` reads what it saved."""
    needs_all: ClassVar[bool] = True
    """Whether it can't do without any of ``methods_needed``; else one of them is enough."""
    offered: ClassVar[bool] = True
    """Whether experiments may name it; else it is a kind of saved classifier alone."""

    def views_read(self, key: str, named: Mapping[str, str]) -> dict[str, str]:
        """Key -> `backbone reads`, of every view that the method itself reads; ``key`` is its own
        in the experiment, ``named`` the experiment's views."""
        return {}

    def views_missing(self, named: Collection[str]) -> tuple[str, ...]:
        """The experiment's views that it can't do without and that are not among ``named``."""
        return ()

    @property
    def generators_asked(self) -> tuple[str, ...]:
        """The names of the language models that it asks itself."""
        return ()

    @property
    def members(self) -> tuple[str | MethodSettings, ...]:
        """Other methods that it is made of, by their names in the experiment or by their settings.
        What they read and ask it reads and asks, too."""
        return ()

    @property
    def methods_needed(self) -> tuple[str, ...]:
        """Methods of the experiment that are fitted before it, since it reads what they became."""
        return ()

    def build(self, name: str, key: str, parts: Parts) -> Method:
        """The method, called ``name``; ``key``: where in the experiment it is described, for
        messages. Raises ``ConfigError``."""
        raise NotImplementedError


def whole(
    settings: MethodSettings, key: str, known: Mapping[str, MethodSettings]
) -> Iterator[tuple[str, MethodSettings]]:
    """A method's settings and those of all that it is made of, each with its key. ``known``: the
    experiment's. Raises ``ConfigError`` for a name that there is not."""
    yield key, settings
    for number, member in enumerate(settings.members):
        if isinstance(member, str):
            if member not in known:
                raise ConfigError(f"{key}: no method {member!r}{suggest(member, known)}")
            left = {name: each for name, each in known.items() if known[name] is not settings}
            if member not in left:
                raise ConfigError(f"{key}: the method {member!r} would be a part of itself")
            yield from whole(known[member], f"methods.{member}", left)
        else:
            yield from whole(member, f"{key}.members.{number}", known)


def one_of_kinds(settings: Iterable[type[MethodSettings]]) -> Any:
    """The type of a field that holds settings of any of these methods, told apart by ``kind``."""
    return Annotated[reduce(or_, settings), Field(discriminator="kind")]


def settings_problem(name: str, made: object) -> str | None:
    """Why ``made`` can't be the settings of the method ``name``, or None."""
    if not (isinstance(made, type) and issubclass(made, MethodSettings)):
        return f"expected a subclass of MethodSettings, got {made!r}"
    field: Any = made.model_fields.get("kind")
    if getattr(field.annotation, "__args__", None) != (name,):
        return f"its settings say kind: {field.annotation}, expected Literal[{name!r}]"
    for each in made.__mro__:
        for what, told in getattr(each, "__annotations__", {}).items():
            if "ClassVar" in str(told) and not what.startswith("_") and not hasattr(made, what):
                return f"its settings lack {what}"
    if not isinstance(made.cost, int) or not re.fullmatch(r"[\w.]+:\w+", made.classifier):
        return "its settings need cost, a whole number, and classifier, `module:class`"
    made.model_rebuild(force=True)  # what pydantic can't build is found out here
    TypeAdapter(one_of_kinds([made, _Other]))
    return None


class _Other(MethodSettings):
    kind: Literal["-"]
