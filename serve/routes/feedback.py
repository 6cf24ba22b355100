"""POST /feedback: what the answer should have been, kept for the next fit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import AfterValidator, BaseModel, Field

from serve.errors import RequestError, TooLongError
from serve.http.answers import tasks_of
from serve.http.schemas import MOST, ModelName, Request, Text, encodable
from serve.model.feedback import FeedbackFiles, checked_label
from serve.model.seats import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    from serve.model.server import Server

Short = Annotated[str, Field(max_length=1000), AfterValidator(encodable)]
Labels = Annotated[list[Short], Field(max_length=MOST, fail_fast=True)]


class FeedbackRequest(Request):
    """``label``: a class, or a list of them where a text may have several (for tagged words one
    tag a word). ``new_label``: it is a class that the model does not know yet."""

    text: Annotated[Text, Field(min_length=1)]
    label: Short | Labels
    task: Text | None = Field(None, description="needed where the model has several")
    model: ModelName = None
    request_id: Annotated[Text, Field(max_length=128)] | None = Field(
        None, description="x-request-id of the answer that is corrected"
    )
    new_label: bool = False


class Stored(BaseModel):
    """What was kept, and for which model."""

    stored: bool
    model: str
    task: str
    label: str | list[str]


def router(server: Server) -> APIRouter:
    routes = APIRouter()
    settings = server.settings
    if not settings.feedback:
        return routes
    files = FeedbackFiles(
        settings.files, server.replica, settings.feedback_bytes, settings.feedback_total_bytes
    )

    @routes.post("/feedback", tags=["feedback"])
    async def feedback(body: FeedbackRequest, request: HttpRequest) -> Stored:
        """Keep a corrected label, text included, as a JSON line below ``FILES/feedback/MODEL``."""
        seat = await server.shelf.get(body.model)
        if not body.text.strip():
            raise RequestError("text: is white space only")
        tokens, most = len(body.text) // CHARACTERS_PER_TOKEN, settings.limits.tokens_per_text
        if tokens > most:
            raise TooLongError(f"text: has about {tokens:,} tokens; the limit is {most:,}")
        if body.task is None and len(seat.tasks) > 1:
            names = ", ".join(task.name for task in seat.tasks)
            raise RequestError(f"{seat.key} answers several tasks: say which is meant of {names}")
        task = tasks_of(seat, body.task)[0]
        label = checked_label(task, body.text, body.label, new=body.new_label)
        row: dict[str, Any] = {
            "text": body.text,
            "task": task.name,
            "label": label,
            "model": seat.label,
            "request_id": body.request_id,
            "feedback_id": request.state.request_id,
        }
        if body.new_label:
            row["new_label"] = True
        await asyncio.to_thread(files.add, seat.name, row)
        return Stored(stored=True, model=seat.label, task=task.name, label=label)

    return routes
