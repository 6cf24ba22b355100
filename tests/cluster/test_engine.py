"""vLLM through Ray's own classes, as far as they go without a GPU and without vLLM."""

from __future__ import annotations

import json
import math
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny_llama import save_tiny_llama

from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.cluster.engine import config_of, processor_of
from llmembed.errors import UnsupportedError, UserError
from llmembed.generation import LocalGenerator, Message, ResponseCache, Sampling
from llmembed.generation.building import build_generator, describe
from llmembed.generation.vllm_rows import Answers, ToAnswer, ToRequest, engine_of, ids_table

SAMPLED = Sampling(temperature=0.7, top_p=0.9, max_tokens=5, stop=("\n",), seed=3, logprobs=True)
END = 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


def row(text: str, tokens: list[int], pieces: list[str], **more: Any) -> dict[str, Any]:
    """A row as Ray's vLLM stage leaves it, made by the class that makes it there."""
    from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMOutputData

    told = [
        {
            token: {"logprob": -0.5 * n, "rank": 2, "decoded_token": piece},
            99: {"logprob": -0.1, "rank": 1, "decoded_token": "other"},
        }
        for n, (token, piece) in enumerate(zip(tokens, pieces, strict=True))
    ]
    output = vLLMOutputData(
        prompt="", prompt_token_ids=[1, 5, 6], num_input_tokens=3, generated_tokens=tokens,
        generated_text=text, num_generated_tokens=len(tokens), logprobs=told,
    )  # fmt: skip
    return {"key": "k", **output.model_dump(), "time_taken_llm": 0.5, **more}


def test_rays_own_class_takes_our_settings(tiny: Path) -> None:
    spec = LocalGenerator(model=str(tiny), dtype="float32").spec
    config = config_of(engine_of(spec, SAMPLED, [END]), gpus=4.0)
    assert config.model_source == str(tiny)
    assert config.get_concurrency() == {"min_size": 1, "max_size": 4}
    settings = config.engine_kwargs
    assert settings["dtype"] == "float32" and settings["max_model_len"] == 2048
    assert settings["load_format"] == "safetensors" and settings["trust_remote_code"] is False
    assert "revision" not in settings, "a folder has none"
    assert not config.should_continue_on_error and not config.log_engine_metrics


def test_rays_own_processor_is_the_engine_alone(tiny: Path, local_ray: None) -> None:
    spec = LocalGenerator(model=str(tiny), dtype="float32").spec
    processor = processor_of(engine_of(spec, SAMPLED, [END]), gpus=1.0)
    assert processor.list_stage_names() == ["vLLMEngineStage"]
    stage = processor.get_stage_by_name("vLLMEngineStage")
    assert stage.map_batches_kwargs["num_gpus"] == 1
    asked = {"key": "k", "tokenized_prompt": [1, 5, 6]}
    sent = processor.preprocess(dict(asked))["__data"]
    assert {*stage.get_required_input_keys()} <= {*sent}
    assert sent["tokenized_prompt"] == [1, 5, 6]
    told = processor.postprocess({"__data": {**sent, **row("a b", [7, 8], ["a", " b"])}})
    assert told["key"] == "k" and told["text"] == "a b"


def test_what_is_asked_is_what_the_sampling_says() -> None:
    assert ToRequest(SAMPLED)({})["sampling_params"] == {
        "temperature": 0.7, "top_p": 0.9, "seed": 3, "max_tokens": 5, "stop": ["\n"], "logprobs": 1,
    }  # fmt: skip
    greedy = ToRequest(Sampling(max_tokens=9))({})["sampling_params"]
    assert greedy == {"temperature": 0.0, "max_tokens": 9}
    table = ids_table(["a", "b"], [[1, 2], [3]])
    assert table.to_pylist()[1] == {"key": "b", "tokenized_prompt": [3]}


def test_answers_end_as_they_ended_and_tell_their_log_probabilities() -> None:
    read = ToAnswer(SAMPLED, (END,))
    ended = read(row("a b", [7, 8, END], ["a", " b", ""]))
    assert (ended["text"], ended["finish"]) == ("a b", "stop")
    assert (ended["prompt_tokens"], ended["completion_tokens"]) == (3, 3)
    assert json.loads(ended["logprobs"]) == [["a", 0.0], [" b", -0.5]]
    assert read(row("abcde", [3, 4, 5, 6, 7], [*"abcde"]))["finish"] == "length"
    assert read(row("abcd", [3, 4, 5, 6, END], [*"abcd", ""]))["finish"] == "stop"
    stopped = read(row("a", [7, 8], ["a", "\n"]))
    assert stopped["finish"] == "stop" and json.loads(stopped["logprobs"]) == [["a", 0.0]]
    # As Arrow may hand them on: numbers as names, and every name in every row.
    named = row("a b", [7, 8], ["a", " b"])
    named["logprobs"] = [
        {"7": named["logprobs"][0][7], "8": None}, {"7": None, "8": named["logprobs"][1][8]},
    ]  # fmt: skip
    assert json.loads(read(named)["logprobs"]) == [["a", 0.0], [" b", -0.5]]
    silent = ToAnswer(Sampling(max_tokens=5), (END,))(row("a", [7], ["a"], logprobs=None))
    assert silent["logprobs"] is None


def test_the_time_of_all_gpus_is_shared_by_tokens_and_not_counted_twice() -> None:
    read = ToAnswer(SAMPLED, (END,))
    now = time.time()
    first = [{**read(row("a", [7], ["a"])), "key": str(n), "ended": now, "seconds": 2.0}
             for n in range(2)]  # fmt: skip
    later = {**read(row("a b", [7, 8], ["a", " b"])), "key": "2", "ended": now + 1, "seconds": 2.0}
    answers = Answers(gpus=2.0)
    given = answers.of(pa.Table.from_pylist(first))
    given |= answers.of(pa.Table.from_pylist([later]))
    total = sum((one.usage for one in given.values()), start=given["0"].usage.scaled(0))
    assert total.seconds == pytest.approx(2 * 3.0), "three seconds of two GPUs"
    assert total.tokens == 4 + 4 + 5
    assert total.energy_is_estimated and total.estimated_joules["gpu"] > 0
    assert given["0"].usage.seconds == pytest.approx(given["1"].usage.seconds)
    assert given["2"].answer.logprobs == (("a", 0.0), (" b", -0.5))
    assert math.isclose(given["2"].usage.seconds, 2.0)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_asked_for_where_it_can_not_be_had_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    prompt = [(Message(role="user", content="hello"),)]
    asked = build_generator({"kind": "local", "model": str(tiny), "backend": "vllm"})
    assert describe(asked)["backend"] == "vllm"
    with RayRuntime(tmp_path) as runtime:
        with pytest.raises(UnsupportedError, match="vLLM is not installed") as caught:
            asked.generate(prompt, Sampling(), runtime)
        assert "\n" not in str(caught.value)
        assert runtime._session is None, "no cluster is started to find that out"
    for alone in (None, LocalRuntime(tmp_path)):
        with pytest.raises(UnsupportedError, match="runs on a Ray cluster"):
            asked.generate(prompt, Sampling(), alone)
    cache = ResponseCache(tmp_path / "answers.sqlite")
    auto = LocalGenerator(model=str(tiny), dtype="float32", cache=cache)
    (answer,) = auto.generate(prompt, Sampling(max_tokens=2), LocalRuntime(tmp_path))
    assert answer.completion_tokens > 0
    # What vLLM answers is kept apart from what transformers does.
    assert auto.missing(prompt, Sampling(max_tokens=2)) == []
    assert auto.missing(prompt, Sampling(max_tokens=2), RayRuntime(tmp_path)) == []
    with pytest.raises(UserError, match="unknown backend"):
        LocalGenerator(model=str(tiny), backend="jax")  # type: ignore[arg-type]
