"""As vLLM has it: /classify."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, Field

from llmembed.contract import Prediction, Task
from serve.http.answers import only_task
from serve.http.bodies import Json
from serve.http.schemas import ModelName, Request, Text, Texts
from serve.routes.tei import headers_of

if TYPE_CHECKING:
    from serve.model.server import Server


class ClassifyRequest(Request):
    input: Text | Texts
    model: ModelName = None
    task: Text | None = Field(None, description="default: the first task of the model")
    truncate: bool | None = None

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class Classified(BaseModel):
    """``probs`` in the order of the task's classes (see /info), null where the method has none;
    ``label`` the likeliest, null where an answer could not be read."""

    index: int
    label: str | None
    probs: list[float] | None
    num_classes: int


class ClassifyUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ClassifyAnswer(BaseModel):
    id: str
    object: Literal["list"] = "list"
    created: int = Field(description="seconds since 1970")
    model: str
    data: list[Classified]
    usage: ClassifyUsage


def router(server: Server) -> APIRouter:
    routes = APIRouter(tags=["vllm"])

    @routes.post("/classify", response_model=ClassifyAnswer)
    async def classify(body: ClassifyRequest, request: HttpRequest) -> Response:
        """One label and the probabilities of all classes for each text, of one task."""
        seat = await server.shelf.get(body.model)
        only_task(seat, body.task)
        texts = body.texts()
        answer = await server.predict(
            texts,
            model=body.model,
            truncate=body.truncate,
            request_id=request.state.request_id,
        )
        task = only_task(answer.seat, body.task)
        prediction = answer.predictions[task.name]
        tokens = int(answer.tokens.sum())
        return Json(
            {
                "id": f"classify-{request.state.request_id}",
                "object": "list",
                "created": int(time.time()),
                "model": body.model or answer.seat.key,
                "data": [classified(task, prediction, row) for row in range(len(texts))],
                "usage": {
                    "prompt_tokens": tokens,
                    "total_tokens": tokens,
                    "completion_tokens": 0,
                },
            },
            headers=headers_of(answer, request),
        )

    return routes


def classified(task: Task, prediction: Prediction, row: int) -> dict[str, Any]:
    """The fields of ``Classified`` for text ``row``."""
    scores = None if prediction.scores is None else prediction.scores[row]
    label = None
    if not prediction.invalid[row]:
        if task.kind == "single":
            label = task.classes[int(prediction.labels[row])]
        elif scores is not None or prediction.labels[row].any():
            best = prediction.labels[row] if scores is None else scores
            label = task.classes[int(np.argmax(best))]
    return {
        "index": row,
        "label": label,
        "probs": None if scores is None else scores.tolist(),
        "num_classes": len(task.classes),
    }
