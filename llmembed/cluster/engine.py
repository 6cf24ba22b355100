"""vLLM through ``ray.data.llm``: whether it can run here, and how.

Written against Ray 2.60; the processor is built by Ray's own classes in tests, but was never run on
a GPU: where this was built there was none.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from llmembed.generation.engine import Engine

ROWS = 64
"""Prompts that are sent to the engine together and come back together."""


def not_installed() -> str | None:
    """Why vLLM can't run, as far as this machine's packages go."""
    if find_spec("vllm") is None:
        return "vLLM is not installed (`pip install 'ray[llm]'`)"
    return None


def config_of(engine: Engine, gpus: float) -> Any:
    """One engine for each whole GPU of the cluster. Prompts come as tokens and answers leave as
    text, so Ray's own stages for either are left out."""
    from ray.data.llm import vLLMEngineProcessorConfig

    return vLLMEngineProcessorConfig(
        model_source=engine.model,
        engine_kwargs=dict(engine.settings),
        batch_size=ROWS,
        concurrency=(1, max(1, int(gpus))),
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
    )


def processor_of(engine: Engine, gpus: float) -> Any:
    """Dataset -> dataset."""
    from ray.data.llm import build_processor

    return build_processor(
        config_of(engine, gpus), preprocess=engine.request, postprocess=engine.answer
    )
