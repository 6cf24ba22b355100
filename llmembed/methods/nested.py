"""Settings of another method inside a method's own: for those that are made of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from llmembed.methods import METHODS
from llmembed.methods.settings import MethodSettings
from llmembed.mistakes import sentence, suggest


def settings_of(values: Any) -> Any:
    """Settings of the kind that ``values`` name, for fields that hold another method's."""
    if not isinstance(values, Mapping):
        return values
    kind = str(values.get("kind"))
    if kind not in METHODS or not METHODS[kind].offered:
        raise ValueError(f"kind is {kind!r}{suggest(kind, METHODS)}")
    try:
        return METHODS[kind].model_validate(values)
    except ValidationError as error:
        fields = METHODS[kind].model_fields
        raise ValueError(sentence(error, lambda place: [] if place[:-1] else fields)) from None


Nested = Annotated[SerializeAsAny[MethodSettings], BeforeValidator(settings_of)]
"""The type of a field that holds another method's settings, of any kind."""
