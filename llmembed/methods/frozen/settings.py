"""Settings of the methods over frozen backbones, and of the one that needs none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from llmembed.errors import ConfigError
from llmembed.fusion import FUSIONS
from llmembed.heads.settings import head_config
from llmembed.methods.settings import MethodSettings, Parts
from llmembed.mistakes import one_of

if TYPE_CHECKING:
    from llmembed.backbones import View
    from llmembed.contract import Method

Penalties = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
"""Values of C, the inverse of the penalty; validation chooses."""
ClassWeights = Annotated[
    bool, Field(description="weigh rows by the inverse of their class's share")
]


class LexicalSettings(MethodSettings):
    kind: Literal["lexical"]
    cost: ClassVar[int] = 0
    classifier: ClassVar[str] = "llmembed.methods.frozen.lexical:LexicalClassifier"
    word_ngrams: int = Field(1, ge=1, le=3)
    inverse_penalties: Penalties = [1.0, 10.0, 100.0, 1000.0]
    class_weights: ClassWeights = False

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed.methods.frozen.lexical import Lexical

        return Lexical(
            name=name,
            word_ngrams=self.word_ngrams,
            inverse_penalties=tuple(self.inverse_penalties),
            class_weights=self.class_weights,
        )


class ProbeSettings(MethodSettings):
    kind: Literal["probe"]
    cost: ClassVar[int] = 10
    classifier: ClassVar[str] = "llmembed.methods.frozen.probe:ProbeClassifier"
    view: str = Field("encoder own", description="backbone and reads; own: as the model says")
    head: Literal["logistic", "kernel"] = "logistic"
    inverse_penalties: Penalties = [0.003, 0.03, 0.3]
    class_weights: ClassWeights = False

    def views_read(self, key: str, named: Mapping[str, str]) -> dict[str, str]:
        return {f"{key}.view": self.view}

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed.methods.frozen.probe import Probe

        view = parts.view(self.view, f"{key}.view")
        if self.head == "kernel":
            from llmembed.methods.frozen.joint_fit import JointFit
            from llmembed.methods.frozen.kernel import Kernel

            joint = JointFit(word_ngrams=0, char_ngrams=None, class_weights=self.class_weights)
            return Kernel(name=name, views={"L": view}, joint=joint)
        return Probe(
            name=name,
            view=view,
            inverse_penalties=tuple(self.inverse_penalties),
            class_weights=self.class_weights,
        )


class FusedSettings(MethodSettings):
    kind: Literal["fused"]
    cost: ClassVar[int] = 20
    classifier: ClassVar[str] = "llmembed.methods.frozen.fused:FusedClassifier"
    fusion: str = "avg"
    views: dict[str, str] | None = Field(None, description="name: `backbone reads`")
    sigma: float = Field(0.2, gt=0)
    width: int | None = Field(None, ge=1, description="K, the width views are aligned to")
    align: Literal["relu", "linear"] = "relu"
    align_dropout: float = Field(0.5, ge=0, lt=1)
    lexical: int = Field(0, ge=0, description="width of the lexical view; 0: none")
    head: dict[str, Any] = {}

    @field_validator("fusion")
    @classmethod
    def _known(cls, name: str) -> str:
        return one_of(name, FUSIONS)

    @field_validator("head")
    @classmethod
    def _head(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("kind") == "kernel":
            if len(values) > 1:
                raise ValueError("a kernel head has no settings here; the method kernel has them")
        else:
            head_config(values)
        return values

    def views_read(self, key: str, named: Mapping[str, str]) -> dict[str, str]:
        if self.views is None:
            return {f"views.{view}": words for view, words in named.items()}
        used = self._used(self.views)
        return {f"{key}.views.{view}": w for view, w in self.views.items() if view in used}

    def views_missing(self, named: Collection[str]) -> tuple[str, ...]:
        return FUSIONS[self.fusion].missing(named) if self.views is None else ()

    def _used(self, named: Collection[str]) -> set[str]:
        """The views that the fusion reads."""
        spec = FUSIONS[self.fusion]
        return {"L", *spec.extras(named), *spec.rows(named)}

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed.methods.frozen.fused import Fused

        named = parts.views if self.views is None else self.views
        missing = FUSIONS[self.fusion].missing(named)
        if missing:
            raise ConfigError(
                f"{key}: fusion {self.fusion!r} reads view {missing[0]!r}, "
                f"but the views are {', '.join(named)}"
            )
        used, place = self._used(named), "views" if self.views is None else f"{key}.views"
        views = {
            view: parts.view(words, f"{place}.{view}")
            for view, words in named.items()
            if view in used
        }
        if self.head.get("kind") == "kernel":
            if FUSIONS[self.fusion].stacked is not None:
                raise ConfigError(
                    f"{key}: fusion {self.fusion!r} is trained with its head, which a kernel is "
                    "not: take one that only joins views, such as concat_b_r"
                )
            return self._kernel(name, views)
        return Fused(
            name=name,
            views=views,
            fusion=self.fusion,
            sigma=self.sigma,
            width=self.width,
            align=self.align,
            align_dropout=self.align_dropout,
            lexical=self.lexical,
            head=head_config(self.head),
        )

    def _kernel(self, name: str, views: Mapping[str, View]) -> Method:
        """The fused features, and terms if there is a lexical view, under a joint kernel."""
        from llmembed.methods.frozen.joint_fit import JointFit
        from llmembed.methods.frozen.kernel import Kernel

        joint = JointFit() if self.lexical else JointFit(word_ngrams=0, char_ngrams=None)
        return Kernel(name=name, views=views, joint=joint, fusion=self.fusion)


class KernelSettings(MethodSettings):
    kind: Literal["kernel"]
    cost: ClassVar[int] = 15
    classifier: ClassVar[str] = "llmembed.methods.frozen.kernel:KernelClassifier"
    views: dict[str, str] | None = Field(
        None, description="name: `backbone reads`; null: the experiment's, {}: none"
    )
    kernel: Literal["rbf", "arc_cosine", "linear"] = "rbf"
    shares: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)] = Field(
        [0.0, 0.25, 0.5], description="of the terms in the kernel; left-out rows choose"
    )
    penalties: Annotated[list[Annotated[float, Field(ge=1e-4)]], Field(min_length=1)] = Field(
        [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0], description="λ; as shares"
    )
    word_ngrams: int = Field(2, ge=0, le=3, description="0: no words among the terms")
    char_ngrams: tuple[int, int] | None = Field((2, 5), description="null: no characters")
    exact_up_to: int = Field(15_000, ge=1, description="rows; above, over landmarks")
    landmarks: int = Field(4000, ge=10)
    class_weights: bool = False

    @model_validator(mode="after")
    def _something(self) -> KernelSettings:
        if self.views == {} and not self.word_ngrams and self.char_ngrams is None:
            raise ValueError("neither views nor terms: nothing is read of a text")
        if self.char_ngrams is not None and not 1 <= self.char_ngrams[0] <= self.char_ngrams[1]:
            raise ValueError("char_ngrams are [least, most] characters, such as [2, 5]")
        return self

    def views_read(self, key: str, named: Mapping[str, str]) -> dict[str, str]:
        own, place = (named, "views") if self.views is None else (self.views, f"{key}.views")
        return {f"{place}.{view}": words for view, words in own.items()}

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed.methods.frozen.joint_fit import JointFit
        from llmembed.methods.frozen.kernel import Kernel

        named, place = parts.views, "views"
        if self.views is not None:
            named, place = self.views, f"{key}.views"
        return Kernel(
            name=name,
            views={view: parts.view(words, f"{place}.{view}") for view, words in named.items()},
            joint=JointFit(
                kernel=self.kernel,
                shares=tuple(sorted(set(self.shares))),
                penalties=tuple(sorted(set(self.penalties), reverse=True)),
                word_ngrams=self.word_ngrams,
                char_ngrams=self.char_ngrams,
                exact_up_to=self.exact_up_to,
                landmarks=self.landmarks,
                class_weights=self.class_weights,
            ),
        )
