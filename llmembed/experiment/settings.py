"""The settings, as pydantic models: unknown keys are refused, values are checked.

An experiment names the data, the backbones, the views read from them, the methods to fit and where
to run. Unknown keys and bad values are answered by one sentence that names the key.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from llmembed.experiment.generators import GeneratorSettings
from llmembed.experiment.judging import Costs, Metric
from llmembed.methods import METHODS
from llmembed.methods.settings import MethodSettings, one_of_kinds, whole
from llmembed.mistakes import sentence
from llmembed.settings import Settings


class Data(Settings):
    """Where labelled texts come from."""

    source: str | list[str] = Field("default", description="a benchmark, files, s3:// or hub id")
    test: str | list[str] | None = None
    valid: str | list[str] | None = None
    hub_config: str | None = Field(None, description="configuration of a data set of the hub")
    hub_revision: str | None = None
    options: dict[str, Any] = Field({}, description="of a benchmark, such as balanced for agnews")
    text_column: str = "text"
    labels: dict[str, str] | None = Field(None, description="task: column")
    kinds: dict[str, Literal["single", "multi", "tokens"]] = {}
    multi: bool = Field(False, description="every task may have several labels a text")
    separator: str = Field(",", description="between the labels of a text, in one string")
    empty_is_none: bool = Field(
        False, description="without a label: none of them, where a text may have several"
    )
    delimiter: str | None = Field(
        None, description="between the columns of csv; default: told by the header"
    )
    encoding: str | None = Field(None, description="of csv and JSON, such as cp1252; else UTF-8")
    split_by_name: bool = Field(
        True, description="files and folders named train, valid, test are these parts"
    )
    drop_leaks: bool = Field(
        False, description="leave out test rows whose text is in train or valid"
    )
    other_label: str | None = Field(
        None, description="the class of texts that fit no class: told apart from the others"
    )
    words_column: str | None = Field(None, description="words of each text, for BIO labels")
    tasks: list[str] | None = Field(None, description="only these tasks")
    feedback: str | None = Field(
        None, description="corrected labels: a served model's name, or their folder"
    )
    limit: int | None = Field(None, ge=10, description="use this many rows of each part")
    seed: int = 0
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    test_fraction: float = Field(0.2, gt=0, lt=1)
    max_bad_fraction: float = Field(0.01, ge=0, le=1)


class BackboneSettings(Settings):
    """A frozen model: preset, hub id or local folder."""

    model: str
    reads: str | None = Field(None, description="such as `mean:1-5 cls:1 pooler`")
    max_tokens: int | None = Field(None, ge=2)
    long_texts: Literal["cut", "head_tail", "windows"] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    template: str | None = Field(None, description="what surrounds a text, `{text}` in it")
    prompt: str | None = Field(
        None, description="one of the model's own, such as query or document; or none"
    )
    normalise: bool | None = Field(None, description="vectors of length 1; null: as the model says")
    trust_remote_code: bool = False


if TYPE_CHECKING:
    AnyMethod = MethodSettings
else:
    AnyMethod = one_of_kinds(each for each in METHODS.values() if each.offered)


class RuntimeSettings(Settings):
    """Where to run and where files go."""

    files: str = "llmembed-files"
    address: str | None = Field(None, description="a running Ray cluster; none: start one here")
    local: bool = False
    actors: int | tuple[int, int] | Literal["auto"] = Field(
        "auto", description="N, or [least, most]"
    )
    threads_per_actor: int | Literal["auto"] = "auto"
    gpus_per_actor: float | Literal["auto"] = "auto"


class TrackingSettings(Settings):
    """MLflow: SQLite under ``files`` unless an address is given."""

    uri: str | None = None
    experiment: str | None = Field(None, description="default: the data set's name")
    register_as: str | None = Field(
        None, description="registered model; default: the data set's name"
    )
    promote: bool = Field(
        False, description="make the winner champion whatever the champion's score"
    )


class PriceSettings(Settings):
    usd_per_kwh: float = Field(0.065, ge=0)
    usd_per_1000_prompt_tokens: float = Field(0.002, ge=0)
    usd_per_1000_completion_tokens: float = Field(0.002, ge=0)


class BudgetSettings(Settings):
    """``compare`` starts no further method past these."""

    seconds: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)


class SelectionSettings(Settings):
    """By which texts methods are chosen, and on which the chosen are fitted in the end."""

    folds: int | Literal["auto"] = Field(
        "auto",
        description="parts of train and validation that are left out in turn; 1: validation alone; "
        "auto: 5 of up to 5,000 rows",
    )
    refit: bool = Field(
        True,
        description="fit what was chosen on train and validation together, where that is cheap",
    )

    @field_validator("folds")
    @classmethod
    def _several(cls, folds: int | str) -> int | str:
        if isinstance(folds, int) and not 1 <= folds <= 50:
            raise ValueError("expected auto or 1 to 50")
        return folds

    @model_validator(mode="after")
    def _one_classifier(self) -> SelectionSettings:
        if not self.refit and self.folds != 1:
            raise ValueError("of several folds none is the classifier: refit: false wants folds: 1")
        return self


class Experiment(Settings):
    """Everything one run of ``fit``, ``compare`` or ``embed`` needs to know."""

    description: str = ""
    data: Data = Data()
    backbones: dict[str, BackboneSettings] = {"encoder": BackboneSettings(model="minilm")}
    views: dict[str, str] = {
        "L": "encoder mean:1-5",
        "B": "encoder pooler",
        "R": "encoder cls:1",
    }
    generators: dict[str, GeneratorSettings] = {}
    methods: dict[str, AnyMethod]
    metric: Metric = None
    costs: Costs = {}
    seeds: int = Field(3, ge=1, le=100)
    selection: SelectionSettings = SelectionSettings()
    wanted_precision: float = Field(0.99, gt=0, le=1)
    wanted_confidence: float = Field(0.95, gt=0, lt=1)
    runtime: RuntimeSettings = RuntimeSettings()
    tracking: TrackingSettings = TrackingSettings()
    prices: PriceSettings = PriceSettings()
    budget: BudgetSettings = BudgetSettings()

    @field_validator("methods")
    @classmethod
    def _some(cls, methods: dict[str, Any]) -> dict[str, Any]:
        if not methods:
            raise ValueError("names no method")
        return methods

    def only(self, names: Sequence[str]) -> Experiment:
        """With these methods alone, and those that they need or are made of."""
        kept: dict[str, MethodSettings] = {}
        left = [*names]
        while left:
            name = left.pop(0)
            if name in kept or name not in self.methods:
                continue  # what there is not is said when the method is built
            kept[name] = self.methods[name]
            for _, each in whole(kept[name], f"methods.{name}", self.methods):
                left += each.methods_needed
                left += [member for member in each.members if isinstance(member, str)]
        return self.model_copy(update={"methods": kept})


GROUPS: dict[str, type[BaseModel]] = {
    "data": Data,
    "runtime": RuntimeSettings,
    "tracking": TrackingSettings,
    "prices": PriceSettings,
    "budget": BudgetSettings,
    "selection": SelectionSettings,
    "backbones": BackboneSettings,
    "generators": GeneratorSettings,
}


def known_keys(place: Sequence[str]) -> Collection[str]:
    """The settings known at ``place``, for the hint of a misspelled key."""
    if not place:
        return list(Experiment.model_fields)
    if place[0] == "methods":
        kinds = [METHODS[part] for part in place[2:3] if part in METHODS] or METHODS.values()
        return list(dict.fromkeys(key for each in kinds for key in each.model_fields))
    return list(GROUPS[place[0]].model_fields)


def complaint(error: ValidationError) -> str:
    """What is wrong with an experiment, in one sentence that names the key."""
    kinds = [kind for kind, each in METHODS.items() if each.offered]
    said = sentence(error, known_keys, kinds)
    first = error.errors()[0]
    if first["type"] == "union_tag_invalid":
        why = METHODS.why_not(str(first["ctx"]["tag"]))
        said += f" (left out: {why})" if why else ""
    return said
