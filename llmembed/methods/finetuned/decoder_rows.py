"""Training texts as prompts and answers in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from llmembed.contract import Examples
from llmembed.finetuning.answer_rows import AnswerRows
from llmembed.finetuning.rows import texts_of
from llmembed.generation.prompt_tokens import PromptTokeniser
from llmembed.methods.demonstrations import Demonstrations
from llmembed.prompts.fitting import fit_prompts
from llmembed.prompts.messages import Prompt
from llmembed.prompts.question import Question

SPARE_TOKENS = 8
"""Room for an answer beyond the longest of the training texts'."""


@dataclass(frozen=True, kw_only=True)
class AnswerEncoder:
    """Prompts of ``question`` with ``demonstrations``, cut in the text where prompt and answer
    would exceed ``context`` tokens; and the gold answers, tokenised as the answer to the prompt is
    when it is scored, with an end. ``location``: where the model's tokenizer is."""

    location: str
    revision: str | None
    context: int
    question: Question
    demonstrations: Demonstrations

    @cached_property
    def _tokens(self) -> PromptTokeniser:
        return PromptTokeniser(location=self.location, revision=self.revision)

    @property
    def name(self) -> str:
        return self.location

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        return [len(row) for row in self._tokens.encode(prompts)]

    def longest_answer(self, *parts: Examples) -> int:
        """Tokens to allow an answer."""
        answers = [
            self.question.answer_of(examples, row)
            for examples in parts
            for row in range(len(examples))
        ]
        found = self._tokens.candidates(answers, after="a")
        return max(map(len, found), default=0) + 1 + SPARE_TOKENS

    def rows(self, examples: Examples, longest: int) -> tuple[AnswerRows, int]:
        """The rows, and how many texts were cut. A text is never shown as its own demonstration's
        answer: with demonstrations the rows they were drawn from stay, but without their own."""
        texts = texts_of(examples)
        pool = self.demonstrations.pool
        blocks = [self.question.block(pool, row) for row in range(len(pool))]
        shown = [
            [block for block, own in zip(blocks, pool.texts, strict=True) if own != text]
            for text in examples.texts
        ]
        fitted = fit_prompts(
            self,  # asked for name, context and tokens alone
            lambda _, text, some: self.question.prompt(text, some),
            texts,
            shown,
            answer_tokens=longest,
        )
        prompts = self._tokens.encode(fitted.prompts)
        ends = [self._tokens.tokeniser.eos_token_id]
        ids, starts = [], []
        for row, prompt in enumerate(prompts):
            after = self._tokens.text(fitted.prompts[row])
            answer = self.question.answer_of(examples, row)
            (said,) = self._tokens.candidates([answer], after=after)
            ids.append([*prompt, *said, *(end for end in ends if end is not None)])
            starts.append(len(prompt))
        return AnswerRows(ids=ids, starts=starts), fitted.cut
