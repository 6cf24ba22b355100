"""A prompt as text and as tokens: the chat template where there is one, else a plain form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmembed.backbones.folder_checks import read_tokenizer
from llmembed.errors import ModelError
from llmembed.prompts import Message, Prompt

TOKENS_A_PROMPT = 64
"""Taken for what a chat template adds by itself (a start token, a default system sentence)."""
TOKENS_A_MESSAGE = 8


@dataclass(frozen=True, kw_only=True)
class PromptTokeniser:
    """The tokeniser of a causal model. ``location``: local folder or hub id.

    With a chat template a prompt is what the template makes of it, up to where the assistant
    begins; where the last message is the assistant's, up to its end, so that the model goes on
    from there. A template that knows no system role gets that text at the head of the first user
    message. Without a template the contents of the messages stand in a row with an empty line
    between them, and nothing marks who speaks.
    """

    location: str
    revision: str | None = None

    @cached_property
    def tokeniser(self) -> Any:
        return read_tokenizer(self.location, revision=self.revision)

    @property
    def templated(self) -> bool:
        return bool(self.tokeniser.chat_template)

    def text(self, prompt: Prompt) -> str:
        if not self.templated:
            return "\n\n".join(message.content for message in prompt)
        try:
            return self._filled(prompt)
        except Exception as error:
            from jinja2 import TemplateError

            if not isinstance(error, TemplateError):
                raise
            merged = without_system(prompt)
            if merged == prompt:
                raise ModelError(
                    f"the chat template of {self.location} can't take the prompt: {error}"
                ) from error
            return self._filled(merged)

    def _filled(self, prompt: Prompt) -> str:
        goes_on = prompt[-1].role == "assistant"
        return str(
            self.tokeniser.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in prompt],
                tokenize=False,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
            )
        )

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids, special ones included, without an end of text."""
        if not prompts:
            return []
        texts = [self.text(prompt) for prompt in prompts]
        # A template writes its own special tokens.
        encoded = self.tokeniser(texts, add_special_tokens=not self.templated)
        ids = [list(map(int, row)) for row in encoded["input_ids"]]
        end = self.tokeniser.eos_token_id
        if not self.templated and end is not None:
            # Some tokenisers end every text; the model is to go on.
            ids = [row[:-1] if len(row) > 1 and row[-1] == end else row for row in ids]
        return ids

    def candidates(self, candidates: Sequence[str], *, after: str) -> list[list[int]]:
        """The tokens of each candidate as what follows the prompt text ``after``; see
        ``space_after``."""
        space = self.space_after(after)
        # Some tokenisers treat the start of a text in their own way, so something stands before.
        before = ":" if space else "\n"
        head = self._ids(before)
        found = []
        for candidate in candidates:
            ids = self._ids(before + space + candidate)
            inside = ids[: len(head)] == head and len(ids) > len(head)
            found.append(ids[len(head) :] if inside else self._ids(space + candidate))
        return found

    def space_after(self, text: str) -> str:
        """What stands between a prompt's text and an answer to it: a space, or nothing where the
        prompt ends in white space or in a mark of its chat template."""
        marked = self.templated and text[-1:] in (">", "]")
        return "" if not text or marked or text[-1].isspace() else " "

    def _ids(self, text: str) -> list[int]:
        return [int(token) for token in self.tokeniser(text, add_special_tokens=False)["input_ids"]]


def without_system(prompt: Prompt) -> Prompt:
    """The system's words at the head of the first user message."""
    system = "\n\n".join(message.content for message in prompt if message.role == "system")
    rest = [message for message in prompt if message.role != "system"]
    for i, message in enumerate(rest):
        if system and message.role == "user":
            rest[i] = Message(role="user", content=f"{system}\n\n{message.content}")
            return tuple(rest)
    return prompt


def tokens_estimated(prompt: Prompt) -> int:
    """An over-estimate for texts in English: three characters a token, where English has four to
    five, and one token for each byte of other scripts."""
    count = TOKENS_A_PROMPT
    for message in prompt:
        size = len(message.content.encode("utf-8", "replace"))
        plain = sum(char.isascii() for char in message.content)
        count += TOKENS_A_MESSAGE + -(-plain // 3) + size - plain
    return count


def tokens_at_most(prompt: Prompt) -> int:
    """No tokeniser in use makes more tokens of a text than it has bytes."""
    sizes = (len(message.content.encode("utf-8", "replace")) for message in prompt)
    return TOKENS_A_PROMPT + sum(TOKENS_A_MESSAGE + size for size in sizes)
