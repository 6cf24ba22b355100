"""The calls that prompts become, with the most each can be billed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmembed.contract import Usage
from llmembed.generation import completions
from llmembed.generation.cache import score_key
from llmembed.generation.calling import Call
from llmembed.generation.prompt_tokens import PromptTokeniser, tokens_at_most, tokens_estimated
from llmembed.generation.request import Sampling
from llmembed.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class CallMaker:
    """For ``model``; ``tokeniser`` where it is known, ``longest``: the field that bounds an
    answer."""

    model: str
    longest: str
    tokeniser: PromptTokeniser | None

    def count(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt; an over-estimate where the tokeniser is not known."""
        if self.tokeniser is not None:
            return [len(row) for row in self.tokeniser.encode(prompts)]
        return [tokens_estimated(prompt) for prompt in prompts]

    def chats(self, prompts: Mapping[str, Prompt], sampling: Sampling) -> list[Call]:
        """A call a prompt, by its key in the cache."""
        bounds = self._at_most([*prompts.values()])
        return [
            Call(
                key=key,
                request=completions.chat_request(self.model, prompt, sampling, self.longest),
                prompt_tokens=bound,
                completion_tokens=sampling.max_tokens,
            )
            for (key, prompt), bound in zip(prompts.items(), bounds, strict=True)
        ]

    def echoes(
        self, prompts: Sequence[Prompt], candidates: Sequence[str], identity: Mapping[str, Any]
    ) -> list[list[Call]]:
        """Of each prompt a call for each candidate. Without a tokeniser the prompt is sent in the
        plain form, with no template."""
        # The endpoint is told whether the text holds its special tokens already.
        model = {**identity, "templated": bool(self.tokeniser)}
        calls: list[list[Call]] = []
        for prompt, bound in zip(prompts, self._at_most(prompts), strict=True):
            text = self._text(prompt)
            calls.append([])
            for answer in self._answers(text, candidates):
                request = completions.echo_request(self.model, text, answer, bool(self.tokeniser))
                call = Call(
                    key=score_key(model, text, [answer]),
                    request=request,
                    prompt_tokens=bound + len(answer.encode("utf-8", "replace")),
                    completion_tokens=1,
                    answer_span=(len(text), len(text) + len(answer)),
                )
                calls[-1].append(call)
        return calls

    def scoring(self, prompt: Prompt, candidates: Sequence[str]) -> Usage:
        """What ``echoes`` would be billed: each candidate with the whole prompt, and a token
        written; an over-estimate where the tokeniser is not known."""
        text = self._text(prompt)
        if self.tokeniser is not None:
            own = sum(map(len, self.tokeniser.candidates(candidates, after=text)))
        else:
            own = sum(len(answer.encode("utf-8", "replace")) for answer in candidates)
        (count,) = self.count([prompt])
        return Usage(
            prompt_tokens=count * len(candidates) + own,
            completion_tokens=len(candidates),
            calls=len(candidates),
        )

    def _answers(self, text: str, candidates: Sequence[str]) -> list[str]:
        space = self.tokeniser.space_after(text) if self.tokeniser else " "
        return [("" if text[-1:].isspace() else space) + each for each in candidates]

    def _text(self, prompt: Prompt) -> str:
        if self.tokeniser is not None:
            return self.tokeniser.text(prompt)
        return "\n\n".join(message.content for message in prompt)

    def _at_most(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens each prompt can be billed at most."""
        if self.tokeniser is not None:
            # The endpoint may add a start token, or a line to the template.
            return [len(row) + 16 for row in self.tokeniser.encode(prompts)]
        return [tokens_at_most(prompt) for prompt in prompts]
