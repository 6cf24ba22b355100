"""POST /explain: which words an answer hangs on, by leaving them out one at a time.

The weight of a word is the score of the label with it minus the score without it, as in
"Understanding Neural Networks through Representation Erasure" (Li, Monroe, Jurafsky, 2016). It
needs nothing of a model but its scores, so every method is explained alike.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

import serve.http.schemas as schemas
from serve.errors import NoFeaturesError, RequestError
from serve.http.answers import only_task
from serve.model.server import refuse_blank
from serve.routes.tei import headers_of

if TYPE_CHECKING:
    from llmembed.contract import Task
    from serve.model.seats import Answer
    from serve.model.server import Server

MOST_PIECES = 64
"""Pieces of a text that are left out in turn; each costs the model one text."""

QUEUE_SHARE = 4
"""Of the tokens that may wait in a replica, an explanation's variants are at most 1 / this."""

# Words are cut at white space; of scripts written without it each character is one.
_ALONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f"
_WORD = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


class ExplainRequest(schemas.Request):
    """``label``: the class whose score is explained, by default the answer. ``words``: at most so
    many pieces are left out in turn; more words are put into groups of neighbours."""

    text: schemas.Text
    model: schemas.ModelName = None
    task: schemas.Text | None = Field(None, description="default: the model's first")
    label: schemas.Text | None = None
    words: int | None = Field(None, ge=1)
    truncate: bool | None = None


class Piece(BaseModel):
    """A word, or neighbouring words, at ``start`` to ``end`` (characters) of the text."""

    text: str
    start: int
    end: int
    weight: float


class Explained(BaseModel):
    """``score``: of ``label`` for the whole text. ``limit``: the most pieces that this text may be
    cut into here. ``note``: what was done, in words."""

    model: str
    task: str
    label: str
    score: float
    method: str
    words: list[Piece]
    word_count: int
    limit: int
    note: str


def router(server: Server) -> APIRouter:
    routes = APIRouter()

    @routes.post("/explain", response_model=Explained, tags=["predict"])
    async def explain(body: ExplainRequest, request: Request) -> Response:
        """Leave-one-out weights of the words of a text."""
        only_task(await server.shelf.get(body.model), body.task)
        limits = server.settings.limits
        if limits.texts < 2:
            raise NoFeaturesError("limits.texts is 1 here, and an explanation takes at least 2")

        async def ask(texts: list[str], *, counted: bool) -> Answer:
            return await server.predict(
                texts,
                model=body.model,
                truncate=body.truncate,
                request_id=request.state.request_id,
                counted=counted,
            )

        refuse_blank([body.text])
        # Refuses what /predict would, and says how many tokens a variant will have.
        first = await ask([body.text], counted=False)
        tokens = int(first.tokens[0])
        room = limits.queued_tokens // QUEUE_SHARE // max(tokens, 1)
        limit = max(1, min(MOST_PIECES, limits.texts - 1, room - 1))
        places = [match.span() for match in _WORD.finditer(body.text)]
        pieces = grouped(places, min(limit, body.words or limit))
        # The whole text again among its variants: all scores come from one version of the model.
        answer = await ask(
            [body.text, *(without(body.text, *piece) for piece in pieces)], counted=False
        )
        task = only_task(answer.seat, body.task)
        index = _label(task, answer, body.label)
        scores = answer.predictions[task.name].scores
        assert scores is not None
        whole = float(scores[0, index])
        most = answer.seat.max_tokens
        found = Explained(
            model=answer.seat.label,
            task=task.name,
            label=task.classes[index],
            score=whole,
            method="leave-one-out",
            words=[
                Piece(text=body.text[start:end], start=start, end=end, weight=whole - float(score))
                for (start, end), score in zip(pieces, scores[1:, index], strict=True)
            ],
            word_count=len(places),
            limit=limit,
            note=_note(len(places), len(pieces), tokens, most),
        )
        return JSONResponse(
            found.model_dump(), headers=headers_of(first.followed_by(answer), request)
        )

    return routes


def grouped(places: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Words' places in at most ``most`` pieces of neighbours, as even as can be."""
    count = min(most, len(places))
    cuts = [len(places) * i // count for i in range(count + 1)] if count else [0]
    return [(places[first][0], places[last - 1][1]) for first, last in pairwise(cuts)]


def without(text: str, start: int, end: int) -> str:
    """The text with a piece left out, and one space where two would meet."""
    before, after = text[:start], text[end:]
    return before + after.lstrip() if before[-1:].isspace() or not before else before + after


def _label(task: Task, answer: Answer, asked: str | None) -> int:
    """The index of the class to explain. Raises ``RequestError``."""
    if asked is not None and asked not in task.classes:
        raise RequestError(
            f"task {task.name!r} has no class {asked[:80]!r}; known are "
            + ", ".join(task.classes[:100])
        )
    scores = answer.predictions[task.name].scores
    if scores is None:
        raise NoFeaturesError(
            f"{answer.seat.key} is a classifier of method {answer.seat.classifier.method!r}, "
            "which gives no scores, so no word's share in them can be told"
        )
    if asked is not None:
        return task.classes.index(asked)
    label = int(answer.predictions[task.name].labels[0]) if task.kind == "single" else -1
    return label if label >= 0 else int(scores[0].argmax())


def _note(words: int, pieces: int, tokens: int, most: int | None) -> str:
    if not words:
        return "there is no word to leave out"
    what = (
        f"each of its {words} words" if pieces == words else f"each of {pieces} groups of its words"
    )
    said = f"score of the label for the whole text minus its score without {what}"
    if most is not None and tokens > most:
        said += f"; of the {tokens:,} tokens {most:,} are read, so what follows moves up into them"
    return said
