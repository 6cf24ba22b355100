"""From the methods an experiment names to ``Method`` objects over resolved backbones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from llmembed.contract import Classifier, Method, Usage
from llmembed.errors import ConfigError
from llmembed.experiment import BackboneSettings, Experiment
from llmembed.methods.settings import LeftOut, MethodSettings, Source, whole
from llmembed.mistakes import suggest
from llmembed.pipelines.console import console
from llmembed.pipelines.generators import Generators
from llmembed.texts import BENCHMARKS

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec, View
    from llmembed.backbones.spec import Dtype
    from llmembed.generation import Generator


OWN = "own"
"""In a view's words: the pooling that the model's own files name."""


class Assembler:
    """Builds the methods of an experiment, and is their ``Parts``; each backbone is resolved once,
    with every read that any method wants of it, so that one pass over the texts serves them all.
    """

    def __init__(self, experiment: Experiment, *, drop_unreadable: bool = False) -> None:
        """``drop_unreadable``: leave out views that their model can't give (no pooler, say) and
        the methods that need them, and say so in ``dropped``, instead of raising later."""
        self._experiment = experiment
        self._specs: dict[str, BackboneSpec] = {}
        self._views = dict(experiment.views)
        self._generators = Generators(experiment)
        self._fitted: dict[str, dict[int, Classifier]] = {}
        self._left_out: dict[str, LeftOut] = {}
        self._building: list[str] = []
        self.names = list(experiment.methods)
        self.dropped: list[str] = []
        if drop_unreadable:
            self._drop()

    def _drop(self) -> None:
        for view, words in self._experiment.views.items():
            lacking = self._lacking(words, f"views.{view}")
            if lacking:
                del self._views[view]
                self.dropped.append(f"view {view} is left out: {lacking}")
        while any(self._leave_out(name) for name in self.names):
            pass  # what needs a method that is left out is left out, too

    def _leave_out(self, name: str) -> bool:
        """Leave a method out if something that it can't do without is not there."""
        lacking = self._lacked_by(name)
        if lacking:
            self.names.remove(name)
            self.dropped.append(f"{name} is left out: {lacking}")
        return bool(lacking)

    def _lacked_by(self, name: str) -> str:
        """What a method can't do without that is not there, or nothing."""
        methods = self._experiment.methods
        needed = methods[name].methods_needed
        gone = [each for each in needed if each in methods and each not in self.names]
        if gone and (methods[name].needs_all or len(gone) == len(needed)):
            return f"it needs {gone[0]}"
        for key, settings in whole(methods[name], f"methods.{name}", methods):
            before = set(settings.views_missing(self._experiment.views))
            for view in sorted({*settings.views_missing(self._views)} - before):
                return f"it reads view {view}"
            for place, words in settings.views_read(key, self._views).items():
                if lacking := self._lacking(words, place):
                    return lacking
        return ""

    def _lacking(self, words: str, key: str) -> str:
        """Why the model can't give the view that ``words`` say, or nothing."""
        from llmembed.backbones import poolings_of

        backbone, reads = self._words(words, key)
        model = self._experiment.backbones[backbone].model
        given = poolings_of(model)
        missing = sorted({read.pooling for read in reads} - given)
        return f"{model} gives no {missing[0]}" if missing else ""

    def order(self) -> list[str]:
        """The methods, cheap ones first, but none before those that it needs. Raises
        ``ConfigError`` where two need each other."""
        left = sorted(self.names, key=lambda name: self._experiment.methods[name].cost)
        found: list[str] = []
        while left:
            ready = [name for name in left if not set(self._needed(name)) & set(left)]
            if not ready:
                raise ConfigError(f"methods.{left[0]}: it needs methods that need it")
            found.append(ready[0])
            left.remove(ready[0])
        return found

    def _needed(self, name: str) -> Sequence[str]:
        return self._experiment.methods[name].methods_needed

    def method(self, which: str | MethodSettings, key: str = "") -> Method:
        """The method the experiment calls ``which``, or that settings of its own describe; it then
        bears the name of ``key``'s last word."""
        if not isinstance(which, str):
            return which.build(key.rpartition(".")[2], key, self)
        if which not in self._experiment.methods:
            raise ConfigError(self._unknown(which, key))
        if which in self._building:
            raise ConfigError(f"methods.{which}: it would be a part of itself")
        self._building.append(which)
        try:
            made = self._experiment.methods[which].build(which, f"methods.{which}", self)
        finally:
            self._building.pop()
        assert made.name == which, f"methods.{which} calls itself {made.name!r}"
        return made

    def fits(self, name: str, key: str) -> Callable[[], Mapping[int, Classifier]]:
        """What ``keep`` is given of the method ``name``, when it is called."""
        if name not in self._experiment.methods:
            raise ConfigError(self._unknown(name, key))

        def fits() -> Mapping[int, Classifier]:
            if not self._fitted.get(name):
                raise ConfigError(f"{key}: the method {name!r}, which it needs, was not fitted")
            return dict(self._fitted[name])

        return fits

    def source(self, name: str, key: str) -> Source:
        """As ``fits``, and what ``keep_left_out`` is given."""

        def left_out() -> LeftOut:
            if name not in self._left_out:
                raise ConfigError(f"{key}: the method {name!r}, which it needs, was not fitted")
            return self._left_out[name]

        untrained = name in self.names and getattr(self.method(name), "machinery_only", False)
        return Source(fits=self.fits(name, key), left_out=left_out, machinery_only=bool(untrained))

    def _unknown(self, name: str, key: str) -> str:
        return f"{key}: no method {name!r}{suggest(name, self._experiment.methods)}"

    def keep(self, name: str, seed: int, classifier: Classifier) -> None:
        """Remember a fit where another method needs it."""
        if self._is_needed(name):
            self._fitted.setdefault(name, {})[seed] = classifier

    def keep_left_out(self, name: str, left_out: LeftOut) -> None:
        """Remember what a method's fits answered to texts left out, where another needs it."""
        if self._is_needed(name):
            self._left_out[name] = left_out

    def _is_needed(self, name: str) -> bool:
        return any(name in self._needed(other) for other in self.names)

    @property
    def views(self) -> Mapping[str, str]:
        """The experiment's named views, without those left out."""
        return self._views

    @property
    def benchmark(self) -> str | None:
        """The benchmark whose texts are labelled, None for other data."""
        source = self._experiment.data.source
        return source if isinstance(source, str) and source in BENCHMARKS else None

    def generator(self, name: str, key: str) -> Generator:
        """The language model that the experiment calls ``name``, made once."""
        return self._generators.named(name, key)

    def paid(self) -> Usage:
        """What language models were really asked for so far."""
        return self._generators.paid()

    def backbones(self) -> list[BackboneSpec]:
        """Every backbone that a method of the experiment reads."""
        wanted = {self._words(view, key)[0] for view, key in self._all_views()}
        return [self._spec(name) for name in sorted(wanted)]

    def view(self, words: str, key: str) -> View:
        """The view that ``words`` say: a backbone's name and reads. ``key``: where in the
        experiment, for messages."""
        from llmembed.backbones import View

        backbone, reads = self._words(words, key)
        return View(backbone=self._spec(backbone), reads=reads)

    def _words(self, words: str, key: str) -> tuple[str, tuple[Any, ...]]:
        from llmembed.backbones import own_reads, parse_reads

        backbone, _, reads = words.strip().partition(" ")
        if backbone not in self._experiment.backbones:
            known = ", ".join(self._experiment.backbones)
            raise ConfigError(f"{key}: no backbone {backbone!r}; known are {known}")
        if not reads.strip():
            raise ConfigError(
                f"{key}: {words!r} names no reads; write for example `{backbone} mean:1-5`"
            )
        if reads.strip() == OWN:
            reads = own_reads(self._experiment.backbones[backbone].model)
        try:
            return backbone, parse_reads(reads)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None

    def _spec(self, name: str) -> BackboneSpec:
        if name not in self._specs:
            from llmembed.backbones import how_read, resolve

            settings: BackboneSettings = self._experiment.backbones[name]
            reads: list[Any] = (
                [*self._words(f"{name} {settings.reads}", f"backbones.{name}.reads")[1]]
                if settings.reads
                else []
            )
            for view, key in self._all_views():
                backbone, wanted = self._words(view, key)
                reads += wanted if backbone == name else ()
            self._specs[name] = resolve(
                settings.model,
                reads=reads or None,
                max_tokens=settings.max_tokens,
                long_texts=settings.long_texts,
                dtype=self._dtype(settings),
                template=settings.template,
                prompt=settings.prompt,
                normalise=settings.normalise,
                trust_remote_code=settings.trust_remote_code,
            )
            if (told := how_read(self._specs[name], settings.model)) is not None:
                console().print(told, style="dim", markup=False)
        return self._specs[name]

    def _dtype(self, settings: BackboneSettings) -> Dtype | Literal["auto"]:
        """One for the whole run. ``auto`` asks the hardware here, which without a GPU says nothing
        of those that a cluster has or is asked for."""
        import torch

        if settings.dtype != "auto" or torch.cuda.is_available():
            return settings.dtype
        runtime = self._experiment.runtime
        gpus = runtime.gpus_per_actor
        if gpus == "auto":
            from llmembed.cluster.session import gpus_at

            gpus = 0 if runtime.local else gpus_at(runtime.address)
        return "bfloat16" if gpus > 0 else "auto"

    def _all_views(self) -> list[tuple[str, str]]:
        """Every view that some method uses, with its key in the experiment."""
        methods = self._experiment.methods
        return [
            (words, place)
            for name in self.names
            for key, settings in whole(methods[name], f"methods.{name}", methods)
            for place, words in settings.views_read(key, self._views).items()
        ]

    def reads_backbone(self, name: str) -> bool:
        """Whether the method's texts are embedded, for itself or for one that it needs."""
        methods = self._experiment.methods
        parts = list(whole(methods[name], f"methods.{name}", methods))
        needed = [each for _, settings in parts for each in settings.methods_needed]
        return any(settings.views_read(key, self._views) for key, settings in parts) or any(
            self.reads_backbone(each) for each in needed if each in self.names
        )
