"""What a local generator sends to workers: prompts as rows, answers with what they took back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from llmembed.contract import Usage
from llmembed.generation.cache import Given, Scored, logprobs_from_json, logprobs_to_json
from llmembed.generation.local_spec import LocalSpec
from llmembed.generation.request import Answer, Sampling
from llmembed.metering import Meter
from llmembed.prompts import Message, Prompt

if TYPE_CHECKING:
    from llmembed.generation.local_model import LocalModel

Work = Callable[[pa.Table], pa.Table]


def prompts_table(prompts: Mapping[str, Prompt]) -> pa.Table:
    """``key`` and ``prompt`` (JSON)."""
    rows = [json.dumps([[m.role, m.content] for m in prompt]) for prompt in prompts.values()]
    return pa.table(
        {"key": pa.array([*prompts], pa.string()), "prompt": pa.array(rows, pa.string())}
    )


@dataclass(frozen=True)
class Generate:
    """``prompts_table`` -> the columns that ``answers_of`` reads."""

    spec: LocalSpec
    sampling: Sampling

    def __call__(self) -> Work:
        from llmembed.generation.local_model import LocalModel

        return self.with_model(LocalModel(self.spec))

    def with_model(self, model: LocalModel) -> Work:
        def work(table: pa.Table) -> pa.Table:
            with Meter() as meter:
                answers = model.generate(_prompts_of(table), self.sampling)
            tokens = [answer.prompt_tokens + answer.completion_tokens for answer in answers]
            return pa.table(
                {
                    "key": table.column("key"),
                    "text": [answer.text.encode("utf-8", "replace").decode() for answer in answers],
                    "finish": [answer.finish for answer in answers],
                    "prompt_tokens": [answer.prompt_tokens for answer in answers],
                    "completion_tokens": [answer.completion_tokens for answer in answers],
                    "logprobs": pa.array(
                        [logprobs_to_json(answer.logprobs) for answer in answers], pa.string()
                    ),
                    "usage": _shares(meter.usage, tokens),
                }
            )

        return work


@dataclass(frozen=True)
class Score:
    """``prompts_table`` -> the columns that ``scores_of`` reads."""

    spec: LocalSpec
    candidates: tuple[str, ...]

    def __call__(self) -> Work:
        from llmembed.generation.local_model import LocalModel

        return self.with_model(LocalModel(self.spec))

    def with_model(self, model: LocalModel) -> Work:
        def work(table: pa.Table) -> pa.Table:
            with Meter() as meter:
                scores, tokens = model.score(_prompts_of(table), self.candidates)
            return pa.table(
                {
                    "key": table.column("key"),
                    "scores": pa.array([*scores], pa.list_(pa.float32())),
                    "usage": _shares(meter.usage, tokens),
                }
            )

        return work


def answers_of(table: pa.Table) -> dict[str, Given]:
    return {
        row["key"]: Given(
            answer=Answer(
                text=row["text"],
                finish=row["finish"],
                prompt_tokens=row["prompt_tokens"],
                completion_tokens=row["completion_tokens"],
                logprobs=logprobs_from_json(row["logprobs"]),
            ),
            usage=Usage.from_json(json.loads(row["usage"])),
        )
        for row in table.to_pylist()
    }


def scores_of(table: pa.Table) -> dict[str, Scored]:
    return {
        row["key"]: Scored(
            scores=tuple(row["scores"]), usage=Usage.from_json(json.loads(row["usage"]))
        )
        for row in table.to_pylist()
    }


def _prompts_of(table: pa.Table) -> list[Prompt]:
    rows: list[list[list[Any]]] = [json.loads(row) for row in table.column("prompt").to_pylist()]
    return [tuple(Message(role=role, content=content) for role, content in row) for row in rows]


def _shares(usage: Usage, tokens: Sequence[int]) -> list[str]:
    """What each row took, by its tokens, as JSON."""
    total = sum(tokens) or 1
    shares = (usage.scaled(count / total) + Usage(tokens=count) for count in tokens)
    return [json.dumps(share.to_json()) for share in shares]
