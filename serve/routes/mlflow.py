"""As MLflow's scoring server has them: /invocations, /ping, /version."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, Field

from llmembed.tracking.pyfunc import TEXT_COLUMN, columns_of
from serve.errors import MediaTypeError, RequestError, UnavailableError
from serve.http.bodies import Json, documented, read_json
from serve.http.schemas import MOST, ModelName, Request
from serve.routes.tei import headers_of

if TYPE_CHECKING:
    from serve.model.server import Server

Values = Annotated[list[Any], Field(max_length=MOST, fail_fast=True)]
Row = Annotated[list[Any], Field(max_length=4096, fail_fast=True)]
FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")


class Split(Request):
    columns: Annotated[list[str | int], Field(max_length=4096, fail_fast=True)]
    data: Annotated[list[Row], Field(max_length=MOST, fail_fast=True)]


class Params(Request):
    """``return_scores``: the scores of all classes too."""

    return_scores: bool = False
    truncate: bool | None = None


class Invocation(Request):
    """Exactly one of the four formats: a table with a column ``text`` (or one column alone), or
    texts."""

    dataframe_split: Split | None = None
    dataframe_records: (
        Annotated[list[dict[str, Any]], Field(max_length=MOST, fail_fast=True)] | None
    ) = None
    inputs: str | Values | dict[str, Any] | None = None
    instances: Values | None = None
    params: Params | None = None


class Predictions(BaseModel):
    """For each text and task: ``TASK``, ``TASK_score`` and, where asked for, ``TASK_scores``."""

    predictions: list[dict[str, Any]]


def router(server: Server) -> APIRouter:
    routes = APIRouter(tags=["mlflow"])
    protocol = version_of("mlflow")

    @routes.post(
        "/invocations",
        response_model=Predictions,
        openapi_extra=documented(Invocation, {"text/csv": {"type": "string"}}),
    )
    async def invocations(
        request: HttpRequest, model: Annotated[ModelName, Query()] = None
    ) -> Response:
        """What the model gives when MLflow loads it, one object for each text."""
        body = await request.body()
        kind, _, parameters = request.headers.get("content-type", "").partition(";")
        if "charset" in parameters and "utf-8" not in parameters.lower():
            raise MediaTypeError("only UTF-8 is read here")
        params = Params()
        if kind.strip().lower() == "text/csv":
            texts = texts_of_csv(body)
        elif kind.strip().lower() == "application/json":
            invocation = read_json(body, Invocation)
            params = invocation.params or params
            texts = texts_of(invocation)
        else:
            raise MediaTypeError("send Content-Type: application/json or text/csv")
        answer = await server.predict(
            texts,
            model=model,
            truncate=params.truncate,
            request_id=request.state.request_id,
        )
        columns = columns_of(
            answer.seat.tasks, answer.predictions, len(texts), params.return_scores
        )
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return Json({"predictions": rows}, headers=headers_of(answer, request))

    @routes.get("/ping", response_class=Response)
    async def ping() -> Response:
        """200 once every model is loaded and warm."""
        if not server.ready:
            raise UnavailableError("models are still being loaded")
        return Response("\n", media_type="application/json")

    @routes.get("/version", response_class=Response)
    async def version() -> Response:
        """The MLflow whose formats these are."""
        return Response(protocol, media_type="text/plain")

    return routes


def texts_of(invocation: Invocation) -> list[str]:
    """The texts of one request. Raises ``RequestError``."""
    given = [name for name in FORMATS if getattr(invocation, name) is not None]
    if len(given) != 1:
        raise RequestError(
            f"give exactly one of {', '.join(FORMATS)}, not {' and '.join(given) or 'none'}"
        )
    values: Any = getattr(invocation, given[0])
    if isinstance(values, str):
        values = [values]
    if isinstance(values, dict):
        column = values[_text_column(list(values))]
        values = [column] if isinstance(column, str) else column
    elif isinstance(values, Split):
        values = _of_table(values.columns, values.data)
    elif values and isinstance(values[0], dict):
        values = _of_records(values)
    if not isinstance(values, list):
        raise RequestError(f"{given[0]}: the column holds no list of texts")
    return _checked([v[0] if isinstance(v, list) and len(v) == 1 else v for v in values])


def texts_of_csv(body: bytes) -> list[str]:
    """The texts of a CSV file with a header; blank lines are passed over, as pandas does. Raises
    ``RequestError``."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RequestError("the CSV is not UTF-8") from None
    try:
        csv.field_size_limit(sys.maxsize)  # a long text is no error; the body is bounded
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise RequestError(f"the CSV can't be read: {error}") from None
    if not rows:
        raise RequestError("the CSV has no header line")
    return _checked(_of_table(rows[0], rows[1:]))


def _of_table(columns: Sequence[str | int], rows: Sequence[Sequence[Any]]) -> list[Any]:
    place = list(columns).index(_text_column(columns))
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise RequestError(f"row {number} has {len(row)} cells, not {len(columns)}")
    return [row[place] for row in rows]


def _of_records(records: Sequence[Any]) -> list[Any]:
    if not all(isinstance(record, Mapping) for record in records):
        raise RequestError("some rows are objects and some are not")
    column = _text_column(list(dict.fromkeys(key for record in records for key in record)))
    return [record.get(column) for record in records]


def _text_column(columns: Sequence[str | int]) -> Any:
    if TEXT_COLUMN in columns:
        return TEXT_COLUMN
    if len(columns) != 1:
        raise RequestError(f"the table has no column {TEXT_COLUMN!r}")
    return columns[0]


def _checked(texts: Sequence[Any]) -> list[str]:
    missing = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if missing:
        raise RequestError(f"row {missing[0]} holds no text ({len(missing)} such rows)")
    if not texts:
        raise RequestError("there is no text in the request")
    return list(texts)
