"""Settings of language models that write."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from llmembed.settings import Settings


class GeneratorSettings(Settings):
    """A language model that writes: behind ``base_url``, or loaded here from hub id or folder."""

    model: str
    base_url: str | None = Field(None, description="of an OpenAI-compatible endpoint, …/v1")
    api_key_env: str | None = Field(
        "OPENAI_API_KEY", description="variable that holds the key; null: the endpoint wants none"
    )
    concurrency: int = Field(16, ge=1, le=1024, description="calls at once")
    timeout_seconds: float = Field(60, gt=0)
    retries: int = Field(5, ge=0, le=20, description="after failures, not after rate limits")
    give_up_after: int = Field(20, ge=1, description="calls in a row without an answer end the run")
    patience_seconds: float = Field(
        600, ge=0, description="for so long rate limits are waited for while nothing is answered"
    )
    cache: Literal["on", "off", "refresh"] = Field(
        "on", description="of answers; refresh: ask everything once more and keep that instead"
    )
    budget_usd: float | None = Field(None, gt=0, description="stop before this is exceeded")
    budget_tokens: int | None = Field(None, gt=0)
    context: int | None = Field(None, ge=16, description="tokens of prompt and answer together")
    tokenizer: str | None = Field(None, description="folder or hub id, to count tokens exactly")
    scores: Literal["echo"] | None = Field(
        None, description="echo: /completions tells log-probabilities of a prompt, as vLLM does"
    )
    longest_answer_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    revision: str | None = None
    backend: Literal["auto", "transformers", "vllm"] = Field(
        "auto", description="of a local model; auto: vLLM where it is installed and has a GPU"
    )
    device: str = "auto"
    batch_tokens: int = Field(16384, ge=64, description="tokens in a local model's batch")
    chunk_prompts: int = Field(64, ge=1, description="prompts answered before they are kept")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    machinery_only: str | None = Field(None, description="why figures say nothing of accuracy")

    @field_validator("cache", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        # YAML reads the words on and off as true and false.
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("api_key_env")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        # Never repeated: it may be the key.
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
            raise ValueError(
                "expected the name of an environment variable in capitals, such as OPENAI_API_KEY, "
                "never the key itself"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("expected an address such as http://HOST:8000/v1")
            if parts.username or parts.password or parts.query:
                raise ValueError("holds a name, password or query; a key goes to api_key_env")
        return url

    def described(self) -> dict[str, Any]:
        """As ``generation.building.build_generator`` takes it: what was set, but for ``cache``,
        whose place is the run's."""
        kind = "local" if self.base_url is None else "endpoint"
        told = self.model_dump(exclude_unset=True, exclude={"cache"})
        kept = {k: v for k, v in told.items() if v is not None or k == "api_key_env"}
        return {"kind": kind, **kept}
