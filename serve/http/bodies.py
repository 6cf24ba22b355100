"""Bodies that FastAPI does not read or write by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class Json(JSONResponse):
    """JSON that always can be written: NaN and infinities are null, half surrogates ``?``."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except ValueError:
            return super().render(_sayable(content))


def _sayable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_sayable(str(key)): _sayable(inner) for key, inner in value.items()}
    return [_sayable(inner) for inner in value] if isinstance(value, list | tuple) else value


def read_json(body: bytes, kind: type[Model]) -> Model:
    """``body`` as ``kind``. Raises ``RequestValidationError``, as FastAPI does."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in found]) from None


def documented(kind: type[BaseModel], others: Mapping[str, Any]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body with ``read_json``; ``others``: further
    content types and their schemas."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(parts[value["$ref"].rpartition("/")[2]])
            return {key: inlined(inner) for key, inner in value.items()}
        return [inlined(inner) for inner in value] if isinstance(value, list) else value

    content = {"application/json": {"schema": inlined(schema)}}
    content |= {name: {"schema": other} for name, other in others.items()}
    return {"requestBody": {"required": True, "content": content}}
