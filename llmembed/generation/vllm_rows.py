"""Prompts as rows for vLLM on Ray Data, and its rows as answers.

Written against Ray 2.60's ``ray.data.llm`` and tested with its own classes, but never run on a GPU:
where this was built there was none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmembed.contract import Usage
from llmembed.generation.cache import Given, logprobs_from_json, logprobs_to_json
from llmembed.generation.engine import Engine
from llmembed.generation.local_spec import LocalSpec
from llmembed.generation.request import Answer, Sampling
from llmembed.metering.declared import GPU_WATTS, GPU_WATTS_VARIABLE
from llmembed.metering.device import declared_watts

if TYPE_CHECKING:
    import pyarrow as pa


def engine_of(spec: LocalSpec, sampling: Sampling, ends: Sequence[int]) -> Engine:
    """vLLM with the model of ``spec``. ``ends``: tokens that end an answer."""
    settings: dict[str, Any] = {
        "dtype": spec.dtype,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "enable_prefix_caching": spec.share_prefix,
        "max_model_len": spec.context,
        "revision": None if spec.weights_sha256 else spec.revision,
        "tokenizer_revision": None if spec.weights_sha256 else spec.revision,
    }
    return Engine(
        model=spec.location,
        settings={name: value for name, value in settings.items() if value is not None},
        request=ToRequest(sampling),
        answer=ToAnswer(sampling, tuple(ends)),
    )


def ids_table(keys: Sequence[str], ids: Sequence[Sequence[int]]) -> pa.Table:
    """``key`` and ``tokenized_prompt``, what vLLM reads instead of a text."""
    import pyarrow as pa

    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "tokenized_prompt": pa.array(ids, pa.list_(pa.int64())),
        }
    )


@dataclass(frozen=True)
class ToRequest:
    """A row of ``ids_table`` -> what vLLM's ``SamplingParams`` is made of."""

    sampling: Sampling

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        asked = self.sampling
        params: dict[str, Any] = {"temperature": asked.temperature, "max_tokens": asked.max_tokens}
        if asked.temperature > 0:
            params |= {"top_p": asked.top_p, "seed": asked.seed}
        if asked.stop:
            params["stop"] = list(asked.stop)
        if asked.logprobs:
            params["logprobs"] = 1  # the token written is told besides the likeliest
        return {"sampling_params": params}


@dataclass(frozen=True)
class ToAnswer:
    """vLLM's row -> the columns that ``Answers`` reads. It does not say why an answer ended: one of
    the longest length counts as cut, unless it ends in a token of ``ends``."""

    sampling: Sampling
    ends: tuple[int, ...]

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        tokens = [int(token) for token in row["generated_tokens"]]
        cut = len(tokens) >= self.sampling.max_tokens and tokens[-1] not in self.ends
        text = str(row["generated_text"]).encode("utf-8", "replace").decode()
        told = self._logprobs(row.get("logprobs"), tokens, text)
        return {
            "key": row["key"],
            "text": text,
            "finish": "length" if cut else "stop",
            "prompt_tokens": int(row["num_input_tokens"]),
            "completion_tokens": len(tokens),
            "logprobs": logprobs_to_json(told) if self.sampling.logprobs else None,
            "ended": time.time(),
            "seconds": float(row["time_taken_llm"]),
        }

    def _logprobs(self, told: Any, tokens: Sequence[int], text: str) -> list[tuple[str, float]]:
        """Of each token that begins within the text kept."""
        found: list[tuple[str, float]] = []
        size = 0
        for token, each in zip(tokens, [] if told is None else told, strict=False):
            if token in self.ends or size >= len(text):
                break
            # On its way through Arrow a number may have become a name.
            one = (each or {}).get(token) or (each or {}).get(str(token))
            if not one:
                break
            piece = str(one["decoded_token"] or "")
            found.append((piece, float(one["logprob"])))
            size += len(piece)
        return found


class Answers:
    """Makes answers of the tables that come back, and shares out what they took by tokens.

    Ray tells when each answer ended and how long it took. While any is written all ``gpus`` count
    as at work; their joules are an estimate from declared power, as nothing here can read counters
    in vLLM's process. Loading the model is not in it.
    """

    def __init__(self, gpus: float) -> None:
        self._gpus = gpus
        self._watts = declared_watts(GPU_WATTS_VARIABLE) or GPU_WATTS
        self._until = 0.0

    def of(self, table: pa.Table) -> dict[str, Given]:
        rows = table.to_pylist()
        began = min(row["ended"] - row["seconds"] for row in rows)
        ended = max(row["ended"] for row in rows)
        seconds = max(0.0, ended - max(began, self._until)) * self._gpus
        self._until = max(self._until, ended)
        took = Usage(seconds=seconds, estimated_joules={"gpu": seconds * self._watts})
        tokens = [row["prompt_tokens"] + row["completion_tokens"] for row in rows]
        total = sum(tokens) or 1
        return {
            row["key"]: Given(
                answer=Answer(
                    text=row["text"],
                    finish=row["finish"],
                    prompt_tokens=row["prompt_tokens"],
                    completion_tokens=row["completion_tokens"],
                    logprobs=logprobs_from_json(row["logprobs"]),
                ),
                usage=took.scaled(count / total) + Usage(tokens=count),
            )
            for row, count in zip(rows, tokens, strict=True)
        }
