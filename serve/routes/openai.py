"""As OpenAI has them: /v1/embeddings and /v1/models."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field, field_validator

from serve.errors import UnknownModelError
from serve.http.bodies import Json
from serve.http.schemas import ModelName, Request, Text, Texts
from serve.routes.tei import features, headers_of, normalised

if TYPE_CHECKING:
    from serve.model.server import Server


def _no_tokens(given: Any) -> Any:
    if isinstance(given, list) and given and isinstance(given[0], int | list):
        raise ValueError("arrays of token numbers are not read here: send texts")
    return given


class EmbeddingsRequest(Request):
    """``model`` may also name a backbone, for its rows instead of the fused features. Rows have
    length one, as OpenAI's."""

    input: Annotated[Text | Texts, BeforeValidator(_no_tokens)]
    model: ModelName = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="refused: features have the width they have")
    truncate: bool | None = None

    @field_validator("dimensions")
    @classmethod
    def _as_they_are(cls, dimensions: int | None) -> None:
        if dimensions is not None:
            raise ValueError("features can't be shortened: leave dimensions out")

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class Tokens(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="base64: little-endian float32")


class Embeddings(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Tokens


class ModelCard(BaseModel):
    """A model that /v1/embeddings answers for: a classifier's features, or a backbone's rows."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelCards(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


def router(server: Server) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["openai"])
    began = int(time.time())

    @routes.post("/embeddings", response_model=Embeddings)
    async def embeddings(body: EmbeddingsRequest, request: HttpRequest) -> Response:
        """The classifier's fused features, or a named backbone's rows."""
        answer = await features(server, body.texts(), body.model, body.truncate, request)
        assert answer.features is not None
        rows = normalised(answer.features)
        coded: list[Any]
        if body.encoding_format == "base64":
            coded = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
        else:
            coded = rows.astype(np.float32).tolist()
        tokens = int(answer.tokens.sum())
        return Json(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": embedding}
                    for index, embedding in enumerate(coded)
                ],
                "model": body.model or answer.seat.key,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            },
            headers=headers_of(answer, request),
        )

    @routes.get("/models", response_model=ModelCards)
    async def models() -> ModelCards:
        """The models served, then their backbones."""
        return ModelCards(data=cards(server, began))

    @routes.get("/models/{name:path}", response_model=ModelCard)
    async def model(name: str) -> ModelCard:
        """One of /v1/models."""
        for card in cards(server, began):
            if card.id == name:
                return card
        raise UnknownModelError(f"no model {name[:80]!r} is served here; see /v1/models")

    return routes


def cards(server: Server, created: int) -> list[ModelCard]:
    """Models and backbones by the names that requests call them."""
    seats = list(server.shelf.seats.values())
    backbones = {host.spec.label for seat in seats for host in seat.hosts.values()}
    return [
        *(ModelCard(id=seat.key, created=created, owned_by="llmembed") for seat in seats),
        *(
            ModelCard(id=label, created=created, owned_by="backbone")
            for label in sorted(backbones - {seat.key for seat in seats})
        ),
    ]
