"""The FastAPI application of one replica: the gate, the routers, the shape of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException

from llmembed import __version__
from serve.errors import RequestError
from serve.http.gate import Gate, path_of, refusal
from serve.http.schemas import Error
from serve.routes import ROUTERS

if TYPE_CHECKING:
    from serve.model.server import Server

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "a body that can't be read"},
    401: {"model": Error, "description": "the key is missing or wrong"},
    404: {"model": Error, "description": "no such model"},
    413: {"model": Error, "description": "body or number of texts above the limit"},
    415: {"model": Error, "description": "a body of a type, or compressed, as is not read here"},
    422: {"model": Error, "description": "not what this expects, or a text that is too long"},
    424: {"model": Error, "description": "this classifier has no such thing"},
    429: {"model": Error, "description": "overloaded: come again"},
    503: {"model": Error, "description": "not ready"},
    504: {"model": Error, "description": "no answer in time"},
    507: {"model": Error, "description": "no more feedback is kept"},
}


def build(server: Server) -> FastAPI:
    """The application that answers for ``server``."""
    settings = server.settings
    app = FastAPI(
        title="llmembed",
        version=__version__,
        description="Registered classifiers: labels, features, feedback.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
    )
    # Named, so that the page of calls offers to fill the key in; the gate does the checking.
    bears = [] if server.key is None else [Depends(HTTPBearer(auto_error=False))]
    for make in ROUTERS:
        router: APIRouter = make(server)
        app.include_router(router, responses=REFUSALS, dependencies=bears)
    if settings.docs:  # FastAPI's own page loads its script from elsewhere
        patch_fastapi(app, docs_url="/docs", redirect_from_root_to_docs=False)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Gate, server=server)
    if settings.cors_origins:  # around the gate: browsers ask first, without the key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "x-total-time", "x-model"],
        )
    return app


def _response(request: Request, error: RequestError) -> Response:
    status, headers, body = refusal(error, path_of(request.scope))
    return Response(body, status_code=status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _response(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    """One sentence: where, and what was wrong. What was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    return _response(request, RequestError(_sentence(error.errors())))


def _sentence(errors: Sequence[Any]) -> str:
    # Of a choice of kinds every one complains: the deepest place says most, and the kind that fits.
    # A list that is too long is too long for every kind.
    broken = next((e for e in errors if e["type"] == "json_invalid"), None)
    if broken is not None:
        return f"the body is not JSON (character {broken['loc'][-1]})"
    first = max(
        errors,
        key=lambda e: (e["type"] == "too_long", len(e["loc"]), not e["type"].endswith("_type")),
    )
    kinds = ("body", "query", "path", "str", "bool", "float")
    words = [str(part) for part in first["loc"] if str(part) not in kinds]
    place = ".".join(word for word in words if not word.startswith(("list[", "constrained", "fun")))
    reason = str(first["msg"]).removeprefix("Value error, ")
    return f"{place or 'the body'}: {reason[:1].lower()}{reason[1:]}"


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds = {404: "not_found", 405: "method_not_allowed"}
    refused = RequestError({404: "there is no such page here"}.get(error.status_code, error.detail))
    refused.status = error.status_code
    refused.error_type = kinds.get(error.status_code, "validation")
    return _response(request, refused)


Maker = Callable[["Server"], APIRouter]
