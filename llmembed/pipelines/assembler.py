"""From the methods an experiment names to ``Method`` objects over resolved backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llmembed.contract import Method, Usage
from llmembed.errors import ConfigError
from llmembed.experiment import (
    BackboneSettings,
    CarpSettings,
    DecoderSettings,
    EncoderSettings,
    Experiment,
    FusedSettings,
    LexicalSettings,
    ProbeSettings,
    PromptSettings,
    head_config,
)
from llmembed.pipelines.finetuning import make as make_finetuning
from llmembed.pipelines.printing import console
from llmembed.pipelines.prompting import Generators
from llmembed.pipelines.prompting import make as make_asking
from llmembed.texts import BENCHMARKS

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec, View
    from llmembed.backbones.spec import Dtype


OWN = "own"
"""In a view's words: the pooling that the model's own files name."""


class Assembler:
    """Builds the methods of an experiment; each backbone is resolved once, with every read that
    any method wants of it, so that one pass over the texts serves them all."""

    def __init__(self, experiment: Experiment, *, drop_unreadable: bool = False) -> None:
        """``drop_unreadable``: leave out views that their model can't give (no pooler, say) and
        the methods that need them, and say so in ``dropped``, instead of raising later."""
        self._experiment = experiment
        self._specs: dict[str, BackboneSpec] = {}
        self._views = dict(experiment.views)
        self._generators = Generators(experiment)
        self.names = list(experiment.methods)
        self.dropped: list[str] = []
        if drop_unreadable:
            self._drop()

    def _drop(self) -> None:
        from llmembed.fusion import FUSIONS

        for view, words in self._experiment.views.items():
            lacking = self._lacking(words, f"views.{view}")
            if lacking:
                del self._views[view]
                self.dropped.append(f"view {view} is left out: {lacking}")
        for name, method in self._experiment.methods.items():
            if isinstance(method, ProbeSettings) or (
                isinstance(method, PromptSettings | CarpSettings) and method.reads_view
            ):
                lacking = self._lacking(method.view, f"methods.{name}.view")
            elif isinstance(method, FusedSettings) and method.views is None:
                missing = set(FUSIONS[method.fusion].missing(self._views))
                gone = sorted(missing - set(FUSIONS[method.fusion].missing(self._experiment.views)))
                lacking = f"it reads view {gone[0]}" if gone else ""
            else:
                continue
            if lacking:
                self.names.remove(name)
                self.dropped.append(f"{name} is left out: {lacking}")

    def _lacking(self, words: str, place: str) -> str:
        """Why the model can't give the view that ``words`` say, or nothing."""
        from llmembed.backbones import poolings_of

        backbone, reads = self._words(words, place)
        model = self._experiment.backbones[backbone].model
        given = poolings_of(model)
        missing = sorted({read.pooling for read in reads} - given)
        return f"{model} gives no {missing[0]}" if missing else ""

    def method(self, name: str) -> Method:
        """The method the experiment calls ``name``."""
        settings = self._experiment.methods[name]
        if isinstance(settings, LexicalSettings):
            from llmembed.methods.lexical import Lexical

            return Lexical(
                name=name,
                word_ngrams=settings.word_ngrams,
                inverse_penalties=tuple(settings.inverse_penalties),
            )
        if isinstance(settings, ProbeSettings):
            from llmembed.methods.probe import Probe

            return Probe(
                name=name,
                view=self.view(settings.view, f"methods.{name}.view"),
                inverse_penalties=tuple(settings.inverse_penalties),
            )
        if isinstance(settings, PromptSettings | CarpSettings):
            return self._asking(name, settings)
        if isinstance(settings, EncoderSettings | DecoderSettings):
            return make_finetuning(name, settings, self._benchmark())
        return self._fused(name, settings)

    def _asking(self, name: str, settings: PromptSettings | CarpSettings) -> Method:
        place = f"methods.{name}"
        return make_asking(
            name,
            settings,
            self._generators.named(settings.generator, place),
            self.view(settings.view, f"{place}.view") if settings.reads_view else None,
            self._benchmark(),
        )

    def _benchmark(self) -> str | None:
        """The benchmark whose texts are labelled, None for other data."""
        source = self._experiment.data.source
        return source if isinstance(source, str) and source in BENCHMARKS else None

    def _fused(self, name: str, settings: FusedSettings) -> Method:
        from llmembed.fusion import FUSIONS
        from llmembed.methods.fused import Fused

        named = self._views if settings.views is None else settings.views
        spec = FUSIONS[settings.fusion]
        missing = spec.missing(named)
        if missing:
            raise ConfigError(
                f"methods.{name}: fusion {settings.fusion!r} reads view {missing[0]!r}, "
                f"but the views are {', '.join(named)}"
            )
        used = {"L", *spec.extras(named), *spec.rows(named)}
        views = {
            view: self.view(words, f"views.{view}") for view, words in named.items() if view in used
        }
        return Fused(
            name=name,
            views=views,
            fusion=settings.fusion,
            sigma=settings.sigma,
            width=settings.width,
            align=settings.align,
            align_dropout=settings.align_dropout,
            lexical=settings.lexical,
            head=head_config(settings.head),
        )

    def paid(self) -> Usage:
        """What language models were really asked for so far."""
        return self._generators.paid()

    def backbones(self) -> list[BackboneSpec]:
        """Every backbone that a method of the experiment reads."""
        wanted = {self._words(view, place)[0] for view, place in self._all_views()}
        return [self._spec(name) for name in sorted(wanted)]

    def view(self, words: str, place: str) -> View:
        """The view that ``words`` say: a backbone's name and reads. ``place`` is the key in the
        experiment, for messages."""
        from llmembed.backbones import View

        backbone, reads = self._words(words, place)
        return View(backbone=self._spec(backbone), reads=reads)

    def _words(self, words: str, place: str) -> tuple[str, tuple[Any, ...]]:
        from llmembed.backbones import own_reads, parse_reads

        backbone, _, reads = words.strip().partition(" ")
        if backbone not in self._experiment.backbones:
            known = ", ".join(self._experiment.backbones)
            raise ConfigError(f"{place}: no backbone {backbone!r}; known are {known}")
        if not reads.strip():
            raise ConfigError(
                f"{place}: {words!r} names no reads; write for example `{backbone} mean:1-5`"
            )
        if reads.strip() == OWN:
            reads = own_reads(self._experiment.backbones[backbone].model)
        try:
            return backbone, parse_reads(reads)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None

    def _spec(self, name: str) -> BackboneSpec:
        if name not in self._specs:
            from llmembed.backbones import how_read, resolve

            settings: BackboneSettings = self._experiment.backbones[name]
            reads: list[Any] = (
                [*self._words(f"{name} {settings.reads}", f"backbones.{name}.reads")[1]]
                if settings.reads
                else []
            )
            for view, place in self._all_views():
                backbone, wanted = self._words(view, place)
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
        """Every view that some method uses, with its place in the experiment."""
        found: list[tuple[str, str]] = []
        for name in self.names:
            method = self._experiment.methods[name]
            if isinstance(method, ProbeSettings) or (
                isinstance(method, PromptSettings | CarpSettings) and method.reads_view
            ):
                found.append((method.view, f"methods.{name}.view"))
            elif isinstance(method, FusedSettings):
                if method.views is None:
                    found += [(words, f"views.{v}") for v, words in self._views.items()]
                else:
                    found += [
                        (words, f"methods.{name}.views.{v}") for v, words in method.views.items()
                    ]
        return found
