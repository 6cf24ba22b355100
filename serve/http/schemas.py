"""Requests and answers of the interfaces, as pydantic models; they make the OpenAPI page too.

Fields of other servers' clients that mean nothing here are passed over, so that those clients
work unchanged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def encodable(text: str) -> str:
    """The text, if it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no text") from None
    return text


Text = Annotated[str, AfterValidator(encodable)]
MOST = 65_536
"""Elements of any list in a request; ``limits.texts`` is at most this."""

# Lists stop at their first fault: else a body of 2 MB of faults takes gigabytes and half a minute.
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST, fail_fast=True)]
Pairs = Annotated[
    list[Annotated[list[Text], Field(min_length=1, max_length=1, fail_fast=True)]],
    Field(min_length=1, max_length=MOST, fail_fast=True),
]
_Name = Annotated[str, Field(max_length=256), AfterValidator(encodable)]
ModelName = Annotated[
    _Name | None,
    Field(description="a model served here, NAME@ALIAS or NAME/VERSION of it; default: the first"),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ErrorDetail(BaseModel):
    """As OpenAI's clients read it, below /v1/."""

    message: str
    type: str


class Error(BaseModel):
    """Every answer that is none. ``error``: one sentence; below /v1/ an object that holds it."""

    error: str | ErrorDetail
    error_type: str


class Health(BaseModel):
    status: str


class Parameters(Request):
    """What Hugging Face's clients send beside the text."""

    top_k: int | None = Field(None, ge=1)
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class PredictRequest(Request):
    """``inputs``: a text, a list of texts, or a list of lists of one text each. ``unknown``: a
    score below which the first label is ``unknown``, with ``abstained`` true, or true for the one
    chosen on validation, for the tasks that have one."""

    inputs: Text | Texts | Pairs
    model: ModelName = None
    task: Text | Texts | None = Field(None, description="default: all tasks of the model")
    raw_scores: bool = False
    truncate: bool | None = None
    unknown: bool | Annotated[float, Field(allow_inf_nan=False)] = False
    parameters: Parameters | None = None

    def texts(self) -> list[str]:
        if isinstance(self.inputs, str):
            return [self.inputs]
        return [text if isinstance(text, str) else text[0] for text in self.inputs]


class Label(BaseModel):
    """``abstained``: with an answer of ``unknown``, which is then no class; else absent."""

    label: str
    score: float | None
    abstained: bool | None = None


class EmbedRequest(Request):
    """``model`` may also name a backbone, for its rows instead of the fused features."""

    inputs: Text | Texts
    model: ModelName = None
    normalize: bool = True
    truncate: bool | None = None

    def texts(self) -> list[str]:
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class TaskInfo(BaseModel):
    """``metric``: what the model was chosen by. ``thresholds``: of a task of several classes a text
    the score that each must reach, in the order of ``classes``."""

    name: str
    kind: str
    classes: list[str]
    unknown_below: float | None
    metric: str
    thresholds: list[float] | None = None


class ModelInfo(BaseModel):
    """One model served. ``backbones``: name -> where it stands (``inside`` or ``apart``)."""

    name: str
    version: int | None
    alias: str | None
    method: str
    tasks: list[TaskInfo]
    features: bool
    max_tokens: int | None
    backbones: dict[str, str]


class Info(BaseModel):
    """Text Embeddings Inference's fields for the first model, and all models."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int | None
    max_client_batch_size: int
    auto_truncate: bool
    version: str
    models: list[ModelInfo]
