"""What an experiment may say of this package's methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from llmembed.contract import Method
from llmembed.methods.settings import MethodSettings, Parts


class CentroidSettings(MethodSettings):
    kind: Literal["centroid"]
    cost: ClassVar[int] = 5
    classifier: ClassVar[str] = "llmembed_centroid.centroid:CentroidClassifier"
    view: str = "encoder mean:1"
    sharpness: float = Field(20.0, gt=0)

    def views_read(self, key: str, named: Mapping[str, str]) -> dict[str, str]:
        return {f"{key}.view": self.view}

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed_centroid.centroid import Centroid

        view = parts.view(self.view, f"{key}.view")
        return Centroid(name=name, view=view, sharpness=self.sharpness)


class CommitteeSettings(MethodSettings):
    """The mean of another method's fits."""

    kind: Literal["committee"]
    cost: ClassVar[int] = 1
    classifier: ClassVar[str] = "llmembed_centroid.committee:CommitteeClassifier"
    of: str = "centroid"

    @property
    def methods_needed(self) -> tuple[str, ...]:
        return (self.of,)

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed_centroid.committee import Committee

        return Committee(name=name, fits=parts.fits(self.of, f"{key}.of"))


class UnbuildableSettings(MethodSettings):
    """A field of a kind that pydantic knows nothing of."""

    kind: Literal["unbuildable"]
    cost: ClassVar[int] = 1
    classifier: ClassVar[str] = "llmembed_centroid.centroid:CentroidClassifier"
    parts: Elsewhere  # noqa: F821
