"""As Text Embeddings Inference has them: /predict, /embed, /health, /info, /metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from llmembed import __version__
from llmembed.metrics import metric_of
from serve.errors import UnavailableError
from serve.http.answers import check_unknown, labels_of, tasks_of, timing_headers, unknown_below
from serve.http.bodies import Json
from serve.http.schemas import (
    EmbedRequest,
    Health,
    Info,
    Label,
    ModelInfo,
    PredictRequest,
    TaskInfo,
)
from serve.model.hosting import LocalHost

if TYPE_CHECKING:
    from serve.model.seats import Answer, Seat
    from serve.model.server import Server

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
Labels = list[Label] | list[list[Label]] | dict[str, Any] | list[list[dict[str, Any]]]


def headers_of(answer: Answer, request: Request) -> dict[str, str]:
    """Timing headers of an answer that is being written now."""
    return dict(timing_headers(answer, time.perf_counter() - request.state.began))


def router(server: Server) -> APIRouter:
    routes = APIRouter()

    @routes.post("/predict", response_model=Labels, tags=["predict"])
    async def predict(body: PredictRequest, request: Request) -> Response:
        """Labels and scores, best first: ``[{label, score}]`` for one text, a list of those for
        several. A model of several tasks answers ``{task: …}`` unless ``task`` names one; words
        are tagged as ``[{entity, word, start, end, score}]``."""
        texts = body.texts()
        seat = await server.shelf.get(body.model)
        check_unknown(seat, tasks_of(seat, body.task), body.unknown)  # refused before any work
        answer = await server.predict(
            texts,
            model=body.model,
            truncate=body.truncate,
            request_id=request.state.request_id,
        )
        tasks = tasks_of(answer.seat, body.task)
        shape = body.parameters
        raw = body.raw_scores or (shape is not None and shape.function_to_apply == "none")
        found: dict[str, Any] = {}
        for task in tasks:
            below = unknown_below(answer.seat, task, body.unknown)
            given = answer.predictions[task.name]
            rows = [
                labels_of(task, given, row, text, raw=raw, unknown_below=below)
                for row, text in enumerate(texts)
            ]
            if shape is not None and shape.top_k is not None and task.kind != "tokens":
                rows = [row[: shape.top_k] for row in rows]
            # Hugging Face's clients expect a list of lists even for one text.
            alone = isinstance(body.inputs, str) and shape is None
            found[task.name] = rows[0] if alone else rows
        several = isinstance(body.task, list) or (len(tasks) > 1)
        content = found if several else found[tasks[0].name]
        return Json(content, headers=headers_of(answer, request))

    @routes.post("/embed", response_model=list[list[float]], tags=["embed"])
    async def embed(body: EmbedRequest, request: Request) -> Response:
        """The classifier's fused features, or a named backbone's rows, one list a text."""
        answer = await features(server, body.texts(), body.model, body.truncate, request)
        assert answer.features is not None
        rows = normalised(answer.features) if body.normalize else answer.features
        return Json(rows.tolist(), headers=headers_of(answer, request))

    @routes.get("/health", response_model=Health, tags=["state"])
    async def health() -> Response:
        """200 once every model is loaded and warm."""
        if not server.ready:
            raise UnavailableError("models are still being loaded")
        return Json({"status": "ok"})

    @routes.get("/info", response_model=Info, tags=["state"])
    async def info() -> Info:
        """What is served, and the limits."""
        seats = list(server.shelf.seats.values())
        first, limits = seats[0], server.settings.limits
        specs = [host.spec for host in first.hosts.values()]
        classes = first.tasks[0].classes
        return Info(
            model_id=first.label,
            model_sha=specs[0].revision if specs else None,
            model_dtype=specs[0].dtype if specs else "float32",
            model_type={
                "classifier": {
                    "id2label": {str(i): name for i, name in enumerate(classes)},
                    "label2id": {name: i for i, name in enumerate(classes)},
                }
            },
            max_concurrent_requests=server.settings.ingress.max_ongoing_requests,
            max_input_length=first.max_tokens or limits.tokens_per_text,
            max_batch_tokens=server.settings.batching.tokens,
            max_client_batch_size=limits.texts,
            auto_truncate=server.settings.truncate,
            version=__version__,
            models=[described(seat) for seat in seats],
        )

    @routes.get("/metrics", tags=["state"], response_class=Response)
    async def metrics() -> Response:
        """Counts of all replicas for Prometheus, each with its ``replica``."""
        return Response(await server.exposition(), media_type=PROMETHEUS)

    return routes


async def features(
    server: Server, texts: list[str], model: str | None, truncate: bool | None, request: Request
) -> Answer:
    """Features of the model, or rows of the backbone, that a request calls ``model``."""
    backbone = None
    for seat in server.shelf.seats.values():
        if model and model in {host.spec.label for host in seat.hosts.values()}:
            model, backbone = seat.key, model
            break
    return await server.features(
        texts,
        model=model,
        backbone=backbone,
        truncate=truncate,
        request_id=request.state.request_id,
    )


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def described(seat: Seat) -> ModelInfo:
    """What /info says of one model."""
    return ModelInfo(
        name=seat.key,
        version=seat.version,
        alias=seat.alias,
        method=seat.classifier.method,
        tasks=[
            TaskInfo(
                name=task.name,
                kind=task.kind,
                classes=list(task.classes),
                unknown_below=seat.thresholds.get(task.name),
                metric=metric_of(task),
                thresholds=list(task.thresholds or [0.5] * len(task.classes))
                if task.kind == "multi"
                else None,
            )
            for task in seat.tasks
        ],
        features=seat.has_features,
        max_tokens=seat.max_tokens,
        backbones={
            host.spec.label: "inside" if isinstance(host, LocalHost) else "apart"
            for host in seat.hosts.values()
        },
    )
