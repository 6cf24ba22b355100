"""``lexical``: TF-IDF and logistic regression, the baseline that needs no model at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmembed.contract import (
    Prediction,
    Reporter,
    Runtime,
    Task,
    Usage,
)
from llmembed.folds import CrossFitted, Folds
from llmembed.fusion.tfidf import TfIdf
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.answers import check_kinds
from llmembed.methods.by_folds import ByFolds
from llmembed.methods.frozen.logistic import (
    Linear,
    answers,
    cross_fit_linears,
    from_arrays,
    parameters_of,
    to_arrays,
)

TERMS = "terms.json"


@dataclass(frozen=True, kw_only=True)
class LexicalClassifier:
    """Answers of one linear map per task over the TF-IDF of a text. ``chosen``: what validation
    chose."""

    method: ClassVar[str] = "lexical"
    tasks: tuple[Task, ...]
    tfidf: TfIdf
    linears: Mapping[str, Linear]
    fit_usage: Usage
    chosen: Mapping[str, Any]

    @property
    def parameters_trained(self) -> int:
        return parameters_of(self.linears)

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        return answers(self.tasks, self.linears, self.tfidf.transform(texts))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        terms = json.dumps(self.tfidf.terms, ensure_ascii=False)
        (folder / TERMS).write_text(terms + "\n", encoding="utf-8")
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={"chosen": dict(self.chosen), "word_ngrams": self.tfidf.word_ngrams},
            arrays={**to_arrays(self.linears), "idf": self.tfidf.idf},
        )

    @classmethod
    def load(cls, folder: Path) -> LexicalClassifier:
        tasks, usage, settings, arrays = saved.read(folder)
        terms = json.loads((folder / TERMS).read_text(encoding="utf-8"))
        return cls(
            tasks=tasks,
            tfidf=TfIdf(word_ngrams=settings["word_ngrams"]).restore(terms, arrays["idf"]),
            linears=from_arrays(tasks, arrays),
            fit_usage=usage,
            chosen=settings["chosen"],
        )


@dataclass(frozen=True, kw_only=True)
class Lexical(ByFolds):
    """Fits ``LexicalClassifier``.

    ``inverse_penalties``: the values of C of which the best on validation is kept.
    ``class_weights``: rows are weighted by the inverse of their class's share.
    """

    deterministic: ClassVar[bool] = True
    word_ngrams: int = 1
    max_terms: int = 100_000
    inverse_penalties: Sequence[float] = (1.0, 10.0, 100.0, 1000.0)
    class_weights: bool = False
    name: str = "lexical"

    def seeded(self, seed: int) -> Lexical:
        return self

    def cross_fit(
        self,
        tasks: Sequence[Task],
        folds: Folds,
        runtime: Runtime,
        reporter: Reporter,
        *,
        seeds: Sequence[int] = (0,),
    ) -> CrossFitted:
        """The terms are those of all texts that are fitted on in the end; which classes the texts
        left out have is not looked at."""
        check_kinds("lexical", tasks)
        texts = folds.examples.texts
        with Meter() as meter:
            tfidf = TfIdf(word_ngrams=self.word_ngrams, max_terms=self.max_terms)
            tfidf.fit_transform(texts if folds.refit else [texts[row] for row in folds.fitted(0)])
            chosen_tasks, linears, chosen, left_out = cross_fit_linears(
                tasks,
                tfidf.transform(texts),
                folds,
                self.inverse_penalties,
                class_weights=self.class_weights,
            )
        classifier = LexicalClassifier(
            tasks=chosen_tasks,
            tfidf=tfidf,
            linears=linears,
            fit_usage=meter.usage,
            chosen={"inverse_penalty": chosen},
        )
        return CrossFitted(
            classifiers=(classifier,), left_out=left_out, shared=classifier.fit_usage
        )
