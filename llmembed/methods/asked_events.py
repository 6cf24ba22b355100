"""What happened to the prompts and answers of one ``predict``, and the sentences that tell it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from llmembed.generation import Answer

NONE = "no answer"
_ROWS_NAMED = 5

SENTENCES = {
    "dropped": "{} demonstrations were dropped to fit the context",
    "cut": "{} texts were cut to fit the context",
    "failed": "{} questions got no answer",
    "refused": "{} questions were refused",
    "empty": "{} answers were empty",
    "too_long": "{} answers were cut at the longest length",
    "invalid": "{} answers could not be read",
    "asked_again": "{} questions were asked again because the answer could not be read",
    "nearest": "{} unreadable answers were given the label nearest in embedding space",
    "padded": "{} words had no tag and were taken as outside",
    "cut_off": "{} tags had no word and were left out",
    "unknown": "{} tags were unknown",
    "counted": "{} were voted on by majority, since a round told no log-probabilities",
    "without_rationale": "{} demonstrations had no rationale and were left out",
}


@dataclass(kw_only=True)
class Events:
    """What happened to the prompts and answers of one ``predict``."""

    texts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    refused: dict[int, str] = field(default_factory=dict)
    """Row -> why it was refused."""

    def saw(self, row: int, answer: Answer) -> None:
        """Count how one answer ended."""
        self.counts["failed"] += answer.finish == "failed"
        self.counts["too_long"] += answer.finish == "length"
        if answer.finish == "failed" and answer.reason:
            self.reasons[f"{NONE}: {answer.reason}"] += 1
        if answer.finish == "refused":
            self.refused.setdefault(row, answer.reason or "it did not say why")
            self.counts["refused"] += 1
            self.reasons[f"refused: {answer.reason}"] += 1
        elif answer.finish != "failed" and not answer.text.strip():
            self.counts["empty"] += 1

    def complaints(self) -> tuple[str, ...]:
        """What endpoint or model said where there is no answer: first what never came, then what
        is the most frequent."""
        ordered = sorted(self.reasons.items(), key=lambda r: (not r[0].startswith(NONE), -r[1]))
        said = [f"{reason} ({count:,} times)" for reason, count in ordered[:3]]
        if empty := self.counts["empty"]:
            said.append(
                f"{empty:,} answers were empty, {self.counts['too_long']:,} were cut at "
                "max_answer_tokens, which must hold a model's thinking too"
            )
        return tuple(said)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind of event that happened."""
        said = [
            sentence.format(f"{self.counts[name]:,}")
            for name, sentence in SENTENCES.items()
            if self.counts[name]
        ]
        said += [f"{reason} ({count:,} times)" for reason, count in self.reasons.most_common(3)]
        if rows := sorted(self.refused):
            more = f" and {len(rows) - _ROWS_NAMED:,} more" if len(rows) > _ROWS_NAMED else ""
            named = ", ".join(map(str, rows[:_ROWS_NAMED]))
            said.append(f"refused were rows {named}{more} of these, counted from 0")
        return tuple(f"of {self.texts:,} texts: {sentence}" for sentence in said)
