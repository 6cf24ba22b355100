"""The Open Inference Protocol (KServe's, Triton's): /v2 health, metadata and infer.

One input ``text``, BYTES. Outputs, for N texts and C classes, each name preceded by ``TASK_``
where the model has several tasks:

========== ========================= ======================================================
kind       output                    holds
========== ========================= ======================================================
``single`` ``label`` BYTES (N)       the label; empty where an answer could not be read
           ``score`` FP32 (N)        the label's score
           ``probs`` FP32 (N, C)     all scores, in the order of the metadata's ``classes``
``multi``  ``label`` BYTES (N)       a JSON list of the labels chosen
           ``probs`` FP32 (N, C)     as above
``tokens`` ``label`` BYTES (N)       a JSON list of the words' tags: texts differ in length
           ``words`` BYTES (N)       a JSON list of words with tag, place and score, as /predict
========== ========================= ======================================================

A method without scores leaves ``score`` and ``probs`` out, and answers 424 where they are asked
for by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from llmembed import __version__
from serve.errors import NoFeaturesError, RequestError, UnavailableError
from serve.http.bodies import Json, documented, read_json
from serve.http.schemas import MOST, Request, Text
from serve.http.tensors import OUTPUTS, Tensor, output_name, outputs_of, texts_of_data, texts_of_raw
from serve.routes.tei import headers_of

if TYPE_CHECKING:
    from serve.model.seats import Seat
    from serve.model.server import Server

INPUT = "text"
JSON_LENGTH = "Inference-Header-Content-Length"
Size = Annotated[int, Field(ge=0, le=2**31)]


EXAMPLE: dict[str, Any] = {
    "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [1], "data": ["oil prices rose"]}]
}


class InputParameters(Request):
    binary_data_size: Size | None = None


class Input(Request):
    name: Literal["text"]
    shape: Annotated[list[Size], Field(max_length=8, fail_fast=True)]
    datatype: Literal["BYTES"]
    parameters: InputParameters | None = None
    data: Annotated[list[Any], Field(max_length=MOST, fail_fast=True)] | None = Field(
        None, description="texts, unless binary_data_size says how many bytes follow the JSON"
    )


class OutputParameters(Request):
    binary_data: bool | None = None
    classification: int | None = None


class Output(Request):
    name: Text
    parameters: OutputParameters | None = None


class InferParameters(Request):
    binary_data_output: bool = False
    truncate: bool | None = None


class InferRequest(Request):
    """A request to infer; with binary tensors it is the head of the body, as long as the header
    ``Inference-Header-Content-Length`` says."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: Text | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[Input], Field(min_length=1, max_length=1, fail_fast=True)]
    outputs: Annotated[list[Output], Field(max_length=64, fail_fast=True)] | None = None


def router(server: Server) -> APIRouter:
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])

    @routes.get("", response_model=dict[str, Any])
    async def about() -> Response:
        """What serves."""
        return Json(
            {"name": "llmembed", "version": __version__, "extensions": ["binary_tensor_data"]}
        )

    @routes.get("/health/live", response_model=dict[str, bool])
    async def live() -> Response:
        """200 while there is a server."""
        return Json({"live": True})

    @routes.get("/health/ready", response_model=dict[str, bool])
    async def ready() -> Response:
        """200 once every model is loaded and warm."""
        if not server.ready:
            raise UnavailableError("models are still being loaded")
        return Json({"ready": True})

    async def metadata(name: str, version: str | None = None) -> Response:
        """A model's input and outputs."""
        seat = await seat_of(name, version)
        return Json(described(seat))

    async def model_ready(name: str, version: str | None = None) -> Response:
        """200 once the model answers."""
        seat = await seat_of(name, version)
        return Json({"name": seat.key, "ready": True})

    async def infer(request: HttpRequest, name: str, version: str | None = None) -> Response:
        """Labels and scores of texts, in JSON or binary tensors."""
        asked, texts = read(await request.body(), request.headers.get(JSON_LENGTH))
        wanted = asked.outputs or []
        check_outputs(await seat_of(name, version), wanted)
        parameters = asked.parameters or InferParameters()
        answer = await server.predict(
            texts,
            model=address(name, version),
            truncate=parameters.truncate,
            request_id=request.state.request_id,
        )
        check_outputs(answer.seat, wanted)
        tensors = outputs_of(answer, texts)
        for output in wanted:
            if output.name not in tensors:
                raise NoFeaturesError(f"{answer.seat.key} gives no scores, so no {output.name}")
        binary = {
            o.name: o.parameters.binary_data
            for o in wanted
            if o.parameters is not None and o.parameters.binary_data is not None
        }
        chosen = [tensors[n] for n in dict.fromkeys(o.name for o in wanted)] or tensors.values()
        return written(
            answer.seat,
            asked.id,
            [(t, binary.get(t.name, parameters.binary_data_output)) for t in chosen],
            headers_of(answer, request),
        )

    async def seat_of(name: str, version: str | None) -> Seat:
        return await server.shelf.get(address(name, version))

    body = documented(InferRequest, {"application/octet-stream": {"type": "string"}})
    for path in ("/models/{name}", "/models/{name}/versions/{version}"):
        routes.get(path, response_model=dict[str, Any])(metadata)
        routes.get(path + "/ready", response_model=dict[str, Any])(model_ready)
        routes.post(path + "/infer", response_model=dict[str, Any], openapi_extra=body)(infer)
    return routes


def address(name: str, version: str | None) -> str:
    """What the shelf calls a model."""
    return name if version is None else f"{name}/{version}"


def described(seat: Seat) -> dict[str, Any]:
    """A model's metadata; each output's ``parameters`` name its task and classes."""
    outputs = []
    for task in seat.tasks:
        for output in OUTPUTS[task.kind]:
            floats = output in ("score", "probs")
            outputs.append(
                {
                    "name": output_name(seat, task, output),
                    "datatype": "FP32" if floats else "BYTES",
                    "shape": [-1, len(task.classes)] if output == "probs" else [-1],
                    "parameters": {
                        "task": task.name,
                        "kind": task.kind,
                        "classes": list(task.classes),
                    },
                }
            )
    return {
        "name": seat.key,
        "versions": [] if seat.version is None else [str(seat.version)],
        "platform": f"llmembed_{seat.classifier.method}",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
    }


def read(body: bytes, json_length: str | None) -> tuple[InferRequest, list[str]]:
    """The request and its texts. Raises ``RequestError`` or ``RequestValidationError``."""
    length = len(body)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 12):
            raise RequestError(f"{JSON_LENGTH} must be a number of bytes")
        length = int(json_length)
        if length > len(body):
            raise RequestError(f"{JSON_LENGTH} is {length}, but the body has {len(body)} bytes")
    asked = read_json(body[:length], InferRequest)
    [given] = asked.inputs
    size = given.parameters.binary_data_size if given.parameters is not None else None
    if size is not None and given.data is not None:
        raise RequestError("inputs.0: give either data or binary_data_size, not both")
    if (size or 0) != len(body) - length:
        raise RequestError(
            f"{len(body) - length} bytes follow the JSON, but binary_data_size is {size or 0}"
        )
    if size is None and given.data is None:
        raise RequestError("inputs.0.data: field required")
    texts = texts_of_data(given.data or []) if size is None else texts_of_raw(body[length:])
    if math.prod(given.shape) != len(texts) or not texts:
        raise RequestError(
            f"inputs.0.shape: {given.shape} does not hold the {len(texts)} texts that were sent"
            if texts
            else "inputs.0: there is no text in it"
        )
    return asked, texts


def check_outputs(seat: Seat, wanted: Sequence[Output]) -> None:
    """Raise ``RequestError`` for an output that the model does not have."""
    known = [output_name(seat, task, name) for task in seat.tasks for name in OUTPUTS[task.kind]]
    for output in wanted:
        if output.name not in known:
            raise RequestError(
                f"outputs: {seat.key} has no {output.name[:80]!r}; it has {', '.join(known)}"
            )
        if output.parameters is not None and output.parameters.classification:
            raise RequestError(
                "outputs: the extension classification is not offered; ask for "
                "label, score and probs"
            )


def written(
    seat: Seat, id: str | None, tensors: Sequence[tuple[Tensor, bool]], headers: dict[str, str]
) -> Response:
    """The answer; tensors marked so are binary and follow the JSON."""
    content: dict[str, Any] = {"model_name": seat.key}
    if seat.version is not None:
        content["model_version"] = str(seat.version)
    if id is not None:
        content["id"] = id
    outputs, tail = [], []
    for tensor, binary in tensors:
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if binary:
            tail.append(tensor.raw())
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = tensor.data()
        outputs.append(output)
    content["outputs"] = outputs
    head = Json(content, headers=headers)
    if not tail:
        return head
    return Response(
        b"".join([bytes(head.body), *tail]),
        media_type="application/octet-stream",
        headers={**headers, JSON_LENGTH: str(len(head.body))},
    )
