"""What every method's settings say beside what they set: its cost, what it reads, how it is built.

The settings of a family stand beside its methods, in ``FAMILY/settings.py``; importing them loads
neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import Field

from llmembed.contract import Classifier, Method
from llmembed.settings import Settings

if TYPE_CHECKING:
    from llmembed.backbones import View
    from llmembed.generation import Generator

Fits = Callable[[], Mapping[int, Classifier]]
"""Seed -> classifier of a method that was fitted before; called while another is being fitted."""


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


class MethodSettings(Settings):
    """Base of all methods' settings. A method's own have ``kind: Literal[...]``, the name by which
    ``METHODS`` knows them."""

    kind: str
    cost: ClassVar[int]
    """Where the method stands when cheap ones are fitted first; ours are 0 to 100."""
    classifier: ClassVar[str]
    """``module:class`` whose ``load`` reads what it saved."""
    offered: ClassVar[bool] = True
    """Whether experiments may name it; else it is a kind of saved classifier alone."""

    def views_read(self, key: str, named: Mapping[str, str]) -> dict[str, str]:
        """Key -> `backbone reads`, of every view that the method reads; ``key`` is its own in the
        experiment, ``named`` the experiment's views."""
        return {}

    @property
    def views_needed(self) -> tuple[str, ...]:
        """The experiment's views without which it can't be fitted."""
        return ()

    @property
    def generator_asked(self) -> str | None:
        """The name of the language model that it asks."""
        return None

    @property
    def methods_needed(self) -> tuple[str, ...]:
        """Methods of the experiment that are fitted before it, since it reads what they became."""
        return ()

    def build(self, name: str, parts: Parts) -> Method:
        """The method, called ``name``. Raises ``ConfigError``."""
        raise NotImplementedError


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
    missing = [what for what in ("cost", "classifier") if not hasattr(made, what)]
    return f"its settings lack {missing[0]}" if missing else None
