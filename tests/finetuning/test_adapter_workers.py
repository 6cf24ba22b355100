"""Adapters trained by workers of a real Ray over a frozen base, quantised or not: the same losses
on any number of them, with DeepSpeed, and after a kill."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_to_kill import DecoderDiesOnce
from safetensors.numpy import load_file

from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.contract import Trained, WorkerContext
from llmembed.errors import UnsupportedError
from llmembed.finetuning import FinetuneConfig, LoraSettings
from llmembed.finetuning.answer_rows import AnswerRows
from llmembed.finetuning.places import source_of
from llmembed.finetuning.worker import DecoderWork
from llmembed.sharding import Sharding

sys.path.append(str(Path(__file__).parent.parent / "generation"))
from tiny_llama import save_tiny_llama

VARIANT = partial(pytest.param, marks=pytest.mark.variant)
CONFIG = FinetuneConfig(
    learning_rate=5e-3,
    max_steps=8,
    batch=8,
    micro_batch=2,
    precision="fp32",
    log_steps=1,
    patience=None,
    keep="last",
    checkpoint_steps=3,
    lora=LoraSettings(rank=4, merge=False),
)


def rows(count: int, seed: int) -> AnswerRows:
    """Prompts of many lengths; the answer is the prompt's first token, twice."""
    rng = np.random.default_rng(seed)
    ids, starts = [], []
    for _ in range(count):
        prompt = rng.integers(10, 60, size=rng.integers(4, 30)).tolist()
        ids.append([*prompt, prompt[0], prompt[0], 2])
        starts.append(len(prompt))
    return AnswerRows(ids=ids, starts=starts)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> DecoderWork:
    folder = save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", layers=1, width=64)
    source = source_of(str(folder), causal=True)
    return DecoderWork(source=source, train=rows(40, 0), valid=rows(12, 1), config=CONFIG)


def quantised(work: DecoderWork) -> DecoderWork:
    pytest.importorskip("bitsandbytes", reason="pip install 'llmembed[quantise]'")
    return replace(work, config=replace(CONFIG, quantise=4))


@pytest.fixture(scope="module")
def alone(work, tmp_path_factory) -> dict[int | None, Trained]:
    runtime = LocalRuntime(tmp_path_factory.mktemp("alone"))
    return {None: runtime.train(work), 4: runtime.train(quantised(work))}


def sharding(**settings: Any) -> Sharding:
    return Sharding(parameters=100_000, batch=CONFIG.batch, bf16=False, **settings)


def losses(done: Trained) -> list[float]:
    assert done.folder is not None
    history = json.loads((done.folder / "progress.json").read_text())["history"]
    steps = [row["step"] for row in history if "train/loss" in row]
    assert steps == [float(step) for step in range(1, CONFIG.max_steps + 1)]
    return [row["train/loss"] for row in history if "train/loss" in row]


def check_same(done: Trained, alone: Trained) -> None:
    np.testing.assert_allclose(losses(done), losses(alone), rtol=1e-3)
    ours, theirs = (
        load_file(each.folder / "best" / "adapter" / "adapter_model.safetensors")
        for each in (done, alone)
        if each.folder is not None
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=2e-3, err_msg=name)
    assert not list((done.folder / "best").glob("*.safetensors")), "the base was copied"


def test_the_losses_differ_by_what_quantising_changes(alone):
    plain, four = losses(alone[None]), losses(alone[4])
    np.testing.assert_allclose(four, plain, rtol=0.25)
    assert max(abs(a - b) for a, b in zip(plain, four, strict=True)) > 1e-3, "nothing was quantised"
    assert four[-1] < four[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "zero"), [(None, 3), VARIANT(4, "off"), VARIANT(4, 1), VARIANT(4, 2)]
)
def test_two_workers_give_the_same_losses_and_adapters(
    bits, zero, work, alone, tmp_path: Path, local_ray
):
    own = work if bits is None else quantised(work)
    frozen = 16.0 if bits is None else 4.13
    with RayRuntime(tmp_path) as runtime:
        done = runtime.train(own, sharding=sharding(workers=2, zero=zero, frozen_bits=frozen))
    check_same(done, alone[bits])


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "zero"), [(None, 3), VARIANT(4, 2)])
def test_killed_they_go_on_from_a_checkpoint_of_adapters_alone(
    bits, zero, work, alone, tmp_path: Path, local_ray
):
    own = work if bits is None else quantised(work)
    dying = DecoderDiesOnce(**vars(own), mark=tmp_path / "died")
    with RayRuntime(tmp_path / "files") as runtime:
        done = runtime.train(dying, sharding=sharding(workers=2, zero=zero))
    assert (tmp_path / "died").exists()
    check_same(done, alone[bits])
    checkpoints = list((tmp_path / "files").rglob("resume/model.safetensors"))
    assert checkpoints
    for file in checkpoints:
        assert all(".lora_" in name for name in load_file(file)), "the base is in it"
    states = [p.stat().st_size for p in (tmp_path / "files").rglob("*_model_states.pt")]
    base = sum(p.stat().st_size for p in Path(work.source.location).glob("*.safetensors"))
    assert states and max(states) < base / 3, "the base is in it"


@pytest.mark.parametrize("bits", [None, 4])
def test_training_goes_on_from_a_checkpoint_of_adapters_alone(bits, work, alone, tmp_path: Path):
    own = work if bits is None else quantised(work)
    steps = []

    def report(metrics: Mapping[str, float], folder: Path | None) -> None:
        if folder is not None:
            steps.append(int(metrics["step"]))
            shutil.copytree(folder, tmp_path / str(len(steps)))

    own(WorkerContext(rank=0, world_size=1, report=report))
    assert steps[0] == 3
    held = load_file(tmp_path / "1" / "resume" / "model.safetensors")
    assert held and all(".lora_" in name for name in held)
    first, folders = tmp_path / "1", len(steps)
    own(WorkerContext(rank=0, world_size=1, report=report, resume_from=first))
    assert steps[folders] == 6, "began anew"
    check_same(Trained(metrics={}, folder=tmp_path / str(len(steps))), alone[bits])


def test_a_whole_model_with_tied_embeddings_goes_on_too(work, tmp_path: Path):
    """One weight under two names is in the checkpoint once."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(work.source.location)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "tied")
    for file in Path(work.source.location).glob("tokenizer*"):
        shutil.copy(file, tmp_path / "tied")
    source = source_of(str(tmp_path / "tied"), causal=True)
    assert source.embedding_parameters == model.get_input_embeddings().weight.numel()
    own = replace(work, source=source, config=replace(CONFIG, lora=None, learning_rate=1e-3))
    kept: list[Path] = []

    def report(metrics: Mapping[str, float], folder: Path | None) -> None:
        if folder is not None:
            kept.append(shutil.copytree(folder, tmp_path / f"kept-{len(kept)}"))

    own(WorkerContext(rank=0, world_size=1, report=report))
    through = len(kept)
    held = load_file(kept[0] / "resume" / "model.safetensors")
    assert sum("embed_tokens" in name or "lm_head" in name for name in held) == 1
    own(WorkerContext(rank=0, world_size=1, report=report, resume_from=kept[0]))
    ends = [Trained(metrics={}, folder=kept[i]) for i in (through - 1, -1)]
    np.testing.assert_allclose(losses(ends[1]), losses(ends[0]), rtol=1e-4)
    best = [load_file(each.folder / "best" / "model.safetensors") for each in ends]
    for name, value in best[0].items():
        np.testing.assert_allclose(best[1][name], value, atol=1e-4, err_msg=name)


def test_without_padding_the_losses_are_the_same(work, tmp_path: Path):
    config = replace(CONFIG, lora=None, learning_rate=1e-3)
    padded, flat = (
        LocalRuntime(tmp_path / str(free)).train(
            replace(work, config=replace(config, padding_free=free))
        )
        for free in (False, True)
    )
    np.testing.assert_allclose(losses(flat), losses(padded), rtol=1e-4)
    history = json.loads((flat.folder / "progress.json").read_text())["history"]
    assert max(row.get("padding", 0.0) for row in history) == 0.0
    weights = [load_file(each.folder / "best" / "model.safetensors") for each in (padded, flat)]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=1e-3, err_msg=name)


def test_a_model_in_which_rows_would_mix_is_refused(work, tmp_path: Path):
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=4,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path / "model")
    for file in Path(work.source.location).glob("tokenizer*"):
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    source = source_of(str(tmp_path / "model"), causal=True)
    free = replace(CONFIG, lora=None, padding_free=True)
    with pytest.raises(UnsupportedError, match=r"padding_free can't be used with .*a mistral"):
        LocalRuntime(tmp_path).train(replace(work, source=source, config=free))
