"""The local generator on a tiny Llama built here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generate_program import SYSTEM, make, prompts
from tiny_llama import CHAT_TEMPLATE, save_tiny_llama

from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.errors import ModelError, UserError
from llmembed.generation import LocalGenerator, Message, Prompt, ResponseCache, Sampling
from llmembed.generation.building import build_generator

PROGRAM = Path(__file__).with_name("generate_program.py")
LABELS = ["earn", "acq", "crude", "money-fx", "interest"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    return save_tiny_llama(folder, chat_template=CHAT_TEMPLATE)


def told(answers: Any) -> list[tuple[str, str, int, int]]:
    return [(a.text, a.finish, a.prompt_tokens, a.completion_tokens) for a in answers]


def by_hand(generator: LocalGenerator, prompt: Prompt, count: int) -> str:
    """Greedy, one token after another, without cache, padding or batch."""
    import torch

    model = generator.model
    ids = model.tokens.encode([prompt])[0]
    start = len(ids)
    for _ in range(count):
        with torch.inference_mode():
            token = int(model.model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == 2:
            break
        ids = [*ids, token]
    return str(model.tokens.tokeniser.decode(ids[start:], skip_special_tokens=True))


@pytest.mark.parametrize("kind", ["llama", "chat", "gpt2"])
def test_a_greedy_answer_does_not_depend_on_its_batch(
    kind: str, tiny: Path, tiny_chat: Path, tmp_path: Path
) -> None:
    folder = {"llama": tiny, "chat": tiny_chat}.get(kind) or save_tiny_llama(
        tmp_path / "gpt2", kind="gpt2", context=512
    )
    asked = prompts(24)
    sampling = Sampling(max_tokens=12)
    together = make(folder)
    answers = together.generate(asked, sampling)
    assert together.model.prefixes.reused > 0
    assert [a.text for a in answers] == [by_hand(together, p, 12) for p in asked]
    assert len({a.text for a in answers}) > 6  # the prompt matters
    alone = make(folder, share_prefix=False)
    assert told([alone.generate([p], sampling)[0] for p in asked]) == told(answers)
    # Other batches, other company.
    few = make(folder, batch_tokens=300)
    order = np.random.default_rng(0).permutation(24)
    mixed = few.generate([asked[i] for i in order], sampling)
    assert told(mixed) == told([answers[i] for i in order])
    assert few.model.work.batches > 6


def test_the_shared_prefix_changes_nothing_and_saves_positions(tiny: Path) -> None:
    asked = prompts(32)
    with_it, without = make(tiny), make(tiny, share_prefix=False)
    sampling = Sampling(max_tokens=4, logprobs=True)
    a, b = with_it.generate(asked, sampling), without.generate(asked, sampling)
    assert told(a) == told(b)
    for one, other in zip(a, b, strict=True):
        assert one.logprobs is not None and other.logprobs is not None
        assert [t for t, _ in one.logprobs] == [t for t, _ in other.logprobs]
        np.testing.assert_allclose(
            [v for _, v in one.logprobs], [v for _, v in other.logprobs], atol=1e-4
        )
    assert without.model.prefixes.reused == 0
    shared = with_it.model.prefixes.reused
    read = sum(answer.prompt_tokens for answer in a)
    assert shared > 0.5 * read  # more than half of what is read is the same
    # A later chunk with the same beginning computes it no second time.
    with_it.generate([(SYSTEM, Message(role="user", content="n99 oil\nLabel:"))], sampling)
    assert with_it.model.prefixes.reused > shared


def test_stop_words_ends_and_lengths(tiny: Path) -> None:
    generator = make(tiny)
    prompt = prompts(3)[2]
    (full,) = generator.generate([prompt], Sampling(max_tokens=24, logprobs=True))
    assert full.finish in ("length", "stop") and len(full.text) > 12
    assert full.logprobs is not None
    assert "".join(token for token, _ in full.logprobs) == full.text
    assert all(value <= 0 for _, value in full.logprobs)
    word = full.text[5:8]
    (cut,) = generator.generate([prompt], Sampling(max_tokens=24, stop=("@@@", word)))
    assert cut.finish == "stop"
    assert cut.text == full.text[: full.text.index(word)]
    assert cut.completion_tokens < full.completion_tokens
    (short,) = generator.generate([prompt], Sampling(max_tokens=2))
    assert (short.finish, short.completion_tokens) == ("length", 2)
    assert full.text.startswith(short.text)


def test_an_end_token_ends_the_answer_and_the_others_go_on(tiny: Path) -> None:
    asked = prompts(16)
    plain = make(tiny)
    answers = plain.generate(asked, Sampling(max_tokens=10))
    (third,) = plain.generate(asked[3:4], Sampling(max_tokens=10, logprobs=True))
    words = [token for token, _ in third.logprobs or ()]
    decode = plain.model.tokens.tokeniser.decode
    spelt = [decode([i]) for i in range(400)]
    place = next(k for k in range(2, 10) if spelt.count(words[k]) == 1 == words.count(words[k]))
    ending = make(tiny)
    ending.model._ends = frozenset({2, spelt.index(words[place])})
    ended = ending.generate(asked, Sampling(max_tokens=10))
    assert {a.finish for a in ended} == {"stop", "length"}
    assert ended[3].text == "".join(words[:place])
    assert ended[3].completion_tokens == place + 1
    for one, other in zip(ended, answers, strict=True):
        assert other.text.startswith(one.text.rstrip("\ufffd"))  # half a character


def test_sampled_answers_are_reproducible_in_any_order(tiny: Path) -> None:
    asked = prompts(20)
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=8, seed=1)
    generator = make(tiny)
    answers = generator.generate(asked, sampling)
    back = make(tiny, batch_tokens=400).generate(asked[::-1], sampling)
    assert told(back[::-1]) == told(answers)
    other = generator.generate(asked, Sampling(temperature=0.7, top_p=0.9, max_tokens=8, seed=2))
    assert sum(a.text != b.text for a, b in zip(answers, other, strict=True)) > 15
    greedy = generator.generate(asked, Sampling(max_tokens=8))
    nearly = generator.generate(asked, Sampling(temperature=1.0, top_p=1e-9, max_tokens=8))
    assert told(nearly) == told(greedy)


def test_choosing_draws_what_the_model_says() -> None:
    import torch

    from llmembed.generation.sampling import choose, draws

    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    drawn = [float(draws([i], 0, 1)[0]) for i in range(4000)]
    shares = np.bincount(choose(logits, 1.0, 1.0, drawn).numpy(), minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    nucleus = np.bincount(choose(logits, 1.0, 0.7, drawn).numpy(), minlength=4) / 4000
    np.testing.assert_allclose(nucleus, [0.625, 0.375, 0, 0], atol=0.03)
    cold = np.bincount(choose(logits, 0.5, 1.0, drawn).numpy(), minlength=4) / 4000
    np.testing.assert_allclose(cold, np.array([25, 9, 2.25, 0.25]) / 36.5, atol=0.03)


@pytest.mark.parametrize("kind", ["plain", "chat"])
@pytest.mark.parametrize("batch_tokens", [200, 16384])
def test_scores_are_those_of_a_naive_loop(
    kind: str, batch_tokens: int, tiny: Path, tiny_chat: Path
) -> None:
    import torch

    generator = make(tiny if kind == "plain" else tiny_chat, batch_tokens=batch_tokens)
    asked = prompts(9)
    scores = generator.score(asked, LABELS)
    model = generator.model
    for i, prompt in enumerate(asked):
        text = model.tokens.text(prompt)
        head = model.tokens.encode([prompt])[0]
        for c, label in enumerate(LABELS):
            answer = f" {label}" if kind == "plain" else label
            rest = model.tokens.tokeniser(answer, add_special_tokens=False)["input_ids"]
            whole = model.tokens.tokeniser(text + answer, add_special_tokens=kind == "plain")[
                "input_ids"
            ]
            assert whole == [*head, *rest]  # so the candidate's tokens are those of the text
            with torch.inference_mode():
                logits = model.model(torch.tensor([whole])).logits[0]
            values = torch.log_softmax(logits.float(), dim=-1)
            naive = sum(float(values[len(head) - 1 + k, token]) for k, token in enumerate(rest))
            assert scores[i, c] == pytest.approx(naive, abs=2e-4)
    assert len({len(model.tokens.candidates([x], after="a")[0]) for x in LABELS}) > 1


def test_the_end_counts_where_it_is_asked_for(tiny: Path) -> None:
    import torch

    plain, ended = make(tiny), make(tiny)
    ended.spec = replace(ended.spec, scores_end=True)
    assert ended.identity != plain.identity  # a cache keeps them apart
    labels = [LABELS[0], f"{LABELS[0]} {LABELS[1]}"]  # the second begins as the first
    [prompt] = prompts(1)
    [open_], [closed] = plain.score([prompt], labels), ended.score([prompt], labels)
    model = plain.model
    head = model.tokens.encode([prompt])[0]
    for c, ids in enumerate(model.tokens.candidates(labels, after="a")):
        with torch.inference_mode():
            logits = model.model(torch.tensor([[*head, *ids]])).logits[0, -1]
        end = torch.log_softmax(logits.float(), dim=-1)[model.tokens.tokeniser.eos_token_id]
        assert closed[c] - open_[c] == pytest.approx(float(end), abs=2e-4)


def test_the_chat_template_and_the_plain_form(tiny: Path, tiny_chat: Path) -> None:
    system, user = Message(role="system", content="be brief"), Message(role="user", content="hi")
    begun = Message(role="assistant", content="Label:")
    plain, chat = make(tiny)._tokeniser, make(tiny_chat)._tokeniser
    assert plain.text((system, user, begun)) == "be brief\n\nhi\n\nLabel:"
    assert chat.text((system, user)) == (
        "<|system|>\nbe brief</s>\n<|user|>\nhi</s>\n<|assistant|>\n"
    )
    assert chat.text((user, begun)) == "<|user|>\nhi</s>\n<|assistant|>\nLabel:"
    assert plain.encode([(user,)])[0][0] == 1 and chat.encode([(user,)])[0][0] != 1
    assert chat.encode([(user,)])[0].count(2) == 1  # special tokens are tokens
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    chat.tokeniser.chat_template = strict + CHAT_TEMPLATE
    assert chat.text((system, user)) == "<|user|>\nbe brief\n\nhi</s>\n<|assistant|>\n"


def test_out_of_memory_halves_the_batch(tiny: Path) -> None:
    import torch

    asked = prompts(12)
    generator = make(tiny)
    answers = generator.generate(asked, Sampling(max_tokens=4))
    small = make(tiny)

    def refuse(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if len(named["input_ids"]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    small.model.model.register_forward_pre_hook(refuse, with_kwargs=True)
    assert told(small.generate(asked, Sampling(max_tokens=4))) == told(answers)
    assert small.model.work.halvings > 0


def test_a_prompt_too_long_for_the_context_is_one_sentence(tmp_path: Path) -> None:
    generator = make(save_tiny_llama(tmp_path / "short", context=128))
    asked = prompts(3)
    count = generator.count_tokens(asked)[2]
    generator.generate(asked, Sampling(max_tokens=128 - count - 5))
    with pytest.raises(UserError, match="do not fit into the context of short, which is 128"):
        generator.generate(asked, Sampling(max_tokens=128 - count + 1))
    assert generator.context == 128


def test_what_is_untrained_says_so_and_what_is_missing_too(tiny: Path, tmp_path: Path) -> None:
    generator = make(tiny)
    assert generator.machinery_only == "a tiny model with random weights, built for tests"
    assert make(tiny, machinery_only="for show").machinery_only == "for show"
    assert generator.name.startswith("tiny-llama@sha256-") and generator.gives_scores
    again = build_generator(generator.to_json())
    assert (again.name, again.machinery_only) == (generator.name, generator.machinery_only)
    with pytest.raises(ModelError, match="no folder"):
        make(tmp_path / "nothing")


def test_a_second_run_computes_nothing_and_still_bears_its_cost(tiny: Path, tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    sampling = Sampling(max_tokens=5, logprobs=True)
    first = make(tiny, cache=cache, chunk_prompts=4)
    asked = [*prompts(10), *prompts(3)]
    answers = first.generate(asked, sampling)
    scores = first.score(prompts(4), LABELS)
    used = first.used()
    read = sum(a.prompt_tokens + a.completion_tokens for a in answers[:10])
    assert used.tokens > read and used.prompt_tokens == 0 and used.seconds > 0
    assert used.energy_joules > 0 and used == first.paid()
    second = make(tiny, cache=cache)
    again = second.generate(asked, sampling)
    assert told(again) == told(answers) and all(a.cached for a in again)
    assert [a.logprobs for a in again] == [a.logprobs for a in answers]
    np.testing.assert_array_equal(second.score(prompts(4), LABELS), scores)
    assert second._model is None  # not even loaded
    assert second.used().tokens == used.tokens
    assert second.paid().tokens == 0
    assert second.missing(prompts(12), sampling) == prompts(12)[10:]
    # Another dtype or order of candidates is another question.
    make(tiny, cache=cache).score(prompts(1), LABELS[::-1])
    assert np.isclose(scores[0], make(tiny, cache=cache).score(prompts(1), LABELS)[0]).all()


def test_a_runtime_in_this_process_does_the_same(tiny: Path, tmp_path: Path) -> None:
    asked, runtime = prompts(20), LocalRuntime(tmp_path)
    here, there = make(tiny), make(tiny)
    sampling = Sampling(max_tokens=4, logprobs=True)
    assert told(there.generate(asked, sampling, runtime)) == told(here.generate(asked, sampling))
    scores = there.score(asked, LABELS, runtime)
    np.testing.assert_allclose(scores, here.score(asked, LABELS), atol=1e-4)
    with pytest.raises(UserError, match="do not fit into the context"):
        there.generate(asked, Sampling(max_tokens=4000), runtime)


@pytest.mark.slow
def test_two_ray_actors_answer_as_this_process_does(
    tiny: Path, tmp_path: Path, local_ray: None
) -> None:
    asked = prompts(24)
    sampling = Sampling(temperature=0.7, max_tokens=6, logprobs=True)
    here = make(tiny)
    expected = here.generate(asked, sampling)
    cache = ResponseCache(tmp_path / "answers.sqlite")
    with RayRuntime(tmp_path, actors=2) as runtime:
        there = make(tiny, cache=cache)
        assert told(there.generate(asked, sampling, runtime)) == told(expected)
        kept = [bool(answer.text.strip()) for answer in expected]  # nothing is kept of nothing
        assert cache.count() == sum(kept) >= 20
        used = there.used()
        assert used.seconds > 0 and used.tokens > sum(here.count_tokens(asked))
    assert there._model is None  # the model was in the actors only
    assert [a.cached for a in there.generate(asked, sampling)] == kept


def test_killed_in_the_middle_and_resumed(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(tiny), str(path), "200"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    cache = ResponseCache(path)
    end = time.monotonic() + 60
    while cache.count() < 20 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    kept = cache.count()
    assert 20 <= kept < 200 and kept % 4 == 0  # whole chunks
    resumed = make(tiny, cache=cache)
    answers = resumed.generate(prompts(200), Sampling(max_tokens=6))
    assert sum(answer.cached for answer in answers) == kept
    paid = sum(a.prompt_tokens + a.completion_tokens for a in answers if not a.cached)
    assert resumed.paid().tokens == paid
