"""Clues and reasoning of training texts, asked for once and kept as Parquet.

::

    FILES/rationales/FINGERPRINT/part-*.parquet

A fingerprint stands for the model, both templates and how it was asked. Parts are complete or
absent and read by anything that reads Parquet.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmembed.contract import Examples, Runtime, Usage
from llmembed.embeddings import Folder
from llmembed.errors import StoreError
from llmembed.generation import Answer, Generator, Prompt, Sampling
from llmembed.methods.asked import Planned
from llmembed.methods.prompted.rationale import Key, Rationale, one_line
from llmembed.prompts.fitting import fit_prompts
from llmembed.prompts.question import Question

CHUNK = 256
"""Rationales made between two writings: what an interrupted run loses of this file (not of the
generator's own cache)."""


@dataclass(kw_only=True)
class Rationales:
    """Makes and keeps rationales. ``wanted``: those asked for so far, by which their cost is
    known; ``lost``: what questions took whose answers are of no use; ``missing``: why there are
    none, and how often, of those asked for last."""

    generator: Generator
    clues: Question
    reasoning: Question
    max_tokens: int
    known: dict[Key, Rationale] = field(default_factory=dict)
    wanted: set[Key] = field(default_factory=set)
    lost: Usage = field(default_factory=Usage)
    missing: Counter[str] = field(default_factory=Counter)
    _read: set[str] = field(default_factory=set)

    @property
    def usage(self) -> Usage:
        """What the rationales asked for took, now or earlier."""
        taken = [self.known[place].usage for place in sorted(self.wanted) if place in self.known]
        return sum(taken, start=self.lost)

    def fingerprint(self) -> str:
        """16 hexadecimal digits over the model, the prompts and how they are asked."""
        told = [
            self.generator.name,
            self.clues.to_json(),
            self.reasoning.to_json(),
            self._sampling(self.clues).to_json(),
        ]
        written = json.dumps(told, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    def of(
        self, examples: Examples, rows: Sequence[int], runtime: Runtime | None
    ) -> dict[int, Rationale]:
        """The rationales of ``rows`` of ``examples``, made where there are none yet; rows whose
        questions got no answer, an empty one or one that was cut are left out, counted in
        ``missing``, and asked again next time.

        With a runtime they are kept below its files. Raises ``BudgetError`` where the budget does
        not allow for more; what was made is kept.
        """
        self.missing = Counter()
        places = {row: self._place(examples, row) for row in rows}
        self.wanted.update(places.values())
        folder = self._folder(runtime) if rows else None
        if folder is not None:
            self._load(folder)
        missing: dict[Key, int] = {}
        for row, place in places.items():
            if place not in self.known:
                missing.setdefault(place, row)
        waiting = list(missing.values())
        for start in range(0, len(waiting), CHUNK):
            made = self._make(examples, waiting[start : start + CHUNK], runtime)
            self.known.update({rationale.place: rationale for rationale in made})
            if folder is not None and made:
                self._write(folder, made)
        return {row: self.known[place] for row, place in places.items() if place in self.known}

    def at_hand(
        self, examples: Examples, rows: Sequence[int], runtime: Runtime | None
    ) -> dict[int, Rationale]:
        """Those of ``rows`` that need not be asked for."""
        if (folder := self._folder(runtime)) is not None:
            self._load(folder)
        places = {row: self._place(examples, row) for row in rows}
        return {row: self.known[place] for row, place in places.items() if place in self.known}

    def plan(self, examples: Examples, rows: Sequence[int]) -> list[Planned]:
        """What making the rationales of ``rows`` would ask, clues as long as they may be."""
        longest = {"clues": "word " * self.max_tokens}
        return [
            Planned(
                what=question.template.variant,
                prompts=self._prompts(question, examples, rows, [told] * len(rows)),
                sampling=self._sampling(question),
            )
            for question, told in ((self.clues, {}), (self.reasoning, longest))
            if rows
        ]

    def _folder(self, runtime: Runtime | None) -> Folder | None:
        if runtime is None:
            return None
        return Folder(runtime.files).child("rationales", self.fingerprint())

    def save(self, file: Path) -> None:
        """Write those asked for as JSON, beside a saved classifier."""
        kept = [self.known[place].to_json() for place in sorted(self.wanted) if place in self.known]
        written = {"rationales": kept, "lost": self.lost.to_json()}
        file.write_text(json.dumps(written, ensure_ascii=False, indent=1), encoding="utf-8")

    def load(self, file: Path) -> None:
        """Take over what ``save`` wrote."""
        written = json.loads(file.read_text(encoding="utf-8"))
        for rationale in map(Rationale.from_json, written["rationales"]):
            if rationale.whole:
                self.known[rationale.place] = rationale
            self.wanted.add(rationale.place)
        self.lost = Usage.from_json(written["lost"])

    def _place(self, examples: Examples, row: int) -> Key:
        from llmembed.embeddings.keys import keys_of, to_bytes

        (task,) = self.clues.tasks
        label = task.classes[int(examples.labels[task.name][row])]
        return to_bytes(keys_of([examples.texts[row]])).hex(), task.name, label

    def _make(
        self, examples: Examples, rows: Sequence[int], runtime: Runtime | None
    ) -> list[Rationale]:
        """Ask for the clues of ``rows``, then for the reasoning from them."""
        self.generator.used()  # what others asked of it is told by them
        clues = self._ask(self.clues, examples, rows, [{}] * len(rows), runtime)
        with_clues = [i for i, answer in enumerate(clues) if self._sound(answer, "clues")]
        told = [{"clues": one_line(clues[i].text, "clues")} for i in with_clues]
        asked = [rows[i] for i in with_clues]
        reasonings = self._ask(self.reasoning, examples, asked, told, runtime)
        usage = self.generator.used()
        both = [(clues[i], answer) for i, answer in zip(with_clues, reasonings, strict=True)]
        sound = [self._sound(answer, "reasoning") for answer in reasonings]
        total = sum(_tokens(answer) for answer in [*clues, *reasonings])
        made = [
            self._rationale(examples, row, told_of["clues"], pair, usage, total)
            for row, told_of, pair, good in zip(asked, told, both, sound, strict=True)
            if good
        ]
        useless = [clues[i] for i in range(len(rows)) if i not in set(with_clues)]
        useless += [
            answer for pair, good in zip(both, sound, strict=True) if not good for answer in pair
        ]
        if useless:
            self.lost += _share(usage, useless, total)
        return made

    def _sound(self, answer: Answer, cue: str) -> bool:
        """Whether ``answer`` is ``cue`` whole; else why not is counted."""
        if answer.finish in ("failed", "refused"):
            why = f"{cue}: {'no answer' if answer.finish == 'failed' else 'refused'}"
            why += f": {answer.reason}" if answer.reason else ""
        elif answer.finish == "length":
            why = f"{cue}: cut at max_rationale_tokens ({self.max_tokens})"
        elif not one_line(answer.text, cue):
            why = f"{cue}: an empty answer"
        else:
            return True
        self.missing[f"no rationale, {why}"] += 1
        return False

    def _rationale(
        self,
        examples: Examples,
        row: int,
        clues: str,
        pair: tuple[Answer, Answer],
        usage: Usage,
        total: int,
    ) -> Rationale:
        key, task, label = self._place(examples, row)
        return Rationale(
            key=key,
            task=task,
            label=label,
            clues=clues,
            reasoning=one_line(pair[1].text, "reasoning"),
            model=self.generator.name,
            prompt_tokens=sum(answer.prompt_tokens for answer in pair),
            completion_tokens=sum(answer.completion_tokens for answer in pair),
            usage=_share(usage, pair, total),
        )

    def _ask(
        self,
        question: Question,
        examples: Examples,
        rows: Sequence[int],
        told: Sequence[Mapping[str, str]],
        runtime: Runtime | None,
    ) -> list[Answer]:
        if not rows:
            return []
        prompts = self._prompts(question, examples, rows, told)
        return self.generator.generate(prompts, self._sampling(question), runtime)

    def _prompts(
        self,
        question: Question,
        examples: Examples,
        rows: Sequence[int],
        told: Sequence[Mapping[str, str]],
    ) -> list[Prompt]:
        return fit_prompts(
            self.generator,
            lambda i, text, _: question.prompt(
                text, (), answer=question.answer_of(examples, rows[i]), **told[i]
            ),
            [examples.texts[row] for row in rows],
            [()] * len(rows),
            answer_tokens=self.max_tokens,
        ).prompts

    def _sampling(self, question: Question) -> Sampling:
        return Sampling(max_tokens=self.max_tokens, stop=question.template.stop)

    def _load(self, folder: Folder) -> None:
        """Read the parts that were not read yet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for name in folder.names():
            if not name.endswith(".parquet") or name in self._read:
                continue
            try:
                rows = pq.read_table(pa.BufferReader(folder.read(name))).to_pylist()
                found = [Rationale.from_json(row) for row in rows]
            except (pa.ArrowInvalid, TypeError, ValueError) as error:
                raise StoreError(
                    f"{folder.address}/{name} holds no rationales ({error}); move it away"
                ) from error
            self._read.add(name)
            for rationale in found:
                if rationale.whole:
                    self.known.setdefault(rationale.place, rationale)

    def _write(self, folder: Folder, made: Sequence[Rationale]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([each.to_json() for each in made]), sink)
        content = sink.getvalue().to_pybytes()
        name = f"part-{len(made):04d}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
        folder.write(name, content)
        self._read.add(name)


def _tokens(answer: Answer) -> int:
    return answer.prompt_tokens + answer.completion_tokens


def _share(usage: Usage, answers: Sequence[Answer], total: int) -> Usage:
    """The part of ``usage`` that ``answers`` took, shared out by tokens; an endpoint's own counts
    as they are."""
    share = usage.scaled(sum(map(_tokens, answers)) / total if total else 0.0)
    if not usage.prompt_tokens:
        return share
    return replace(
        share,
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        calls=len(answers),
    )
