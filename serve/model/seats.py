"""A loaded classifier, ready to answer: its texts tokenised, embedded in company, judged."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from llmembed.contract import (
    Classifier,
    CountsTokens,
    OverBackbones,
    Prediction,
    Task,
    Usage,
    unanswered_rows,
)
from llmembed.errors import NoAnswerError
from llmembed.methods.views import take_view
from serve.errors import AwayError, NoFeaturesError, TooLongError
from serve.model.batching import Batched, TokenBatcher
from serve.model.energy import Timing, metered

if TYPE_CHECKING:
    from serve.model.hosting import Host
    from serve.settings import Batching, Limits

logger = logging.getLogger("llmembed.serve")
AWAY = "the language model behind this classifier gave no answer; come again"
CHARACTERS_PER_TOKEN = 4
"""For classifiers that can't say how many tokens a text has; an estimate, used for batches."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Predictions by task, or features float32 (N, F), of N texts of ``tokens`` tokens (N,)."""

    seat: Seat
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    features: np.ndarray | None = None
    tokens: np.ndarray
    characters: int
    timing: Timing

    def followed_by(self, last: Answer) -> Answer:
        """``last``, with what this answer took before it added to what it took."""
        return replace(
            last,
            tokens=np.concatenate([self.tokens, last.tokens]),
            characters=self.characters + last.characters,
            timing=self.timing + last.timing,
        )


class Seat:
    """One version of a model, loaded. ``key`` is what requests call it; ``version``, ``alias``
    and ``run_id`` are the registry's, None for a folder. ``in_flight``: requests it has not
    answered yet. ``thresholds``: task -> score below which ``unknown`` may be asked for.
    ``reference``: what validation answered, for drift."""

    def __init__(
        self,
        classifier: Classifier,
        *,
        name: str,
        key: str | None = None,
        hosts: Mapping[str, Host],
        batching: Batching,
        limits: Limits,
        version: int | None = None,
        alias: str | None = None,
        run_id: str | None = None,
        thresholds: Mapping[str, float] | None = None,
        reference: Mapping[str, Any] | None = None,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self.classifier = classifier
        self.name, self.key, self.version, self.alias = name, key or name, version, alias
        self.run_id = run_id
        self.in_flight = 0
        self.closed = False
        self.thresholds = dict(thresholds or {})
        self.reference = dict(reference or {})
        self.hosts = dict(hosts)
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="head")
        self._batcher: TokenBatcher[Sequence[str], Mapping[str, Prediction]] | None = None
        if not self.hosts:
            self._batcher = TokenBatcher(
                self._predict_many,
                budget=batching.tokens or 4096,
                room=limits.queued_tokens,
                wait_seconds=batching.wait_seconds,
                observe=observe,
                name="classifier",
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.classifier.tasks

    @property
    def has_features(self) -> bool:
        return isinstance(self.classifier, OverBackbones)

    @property
    def label(self) -> str:
        """``NAME/3``, or the name alone for a folder."""
        return self.name if self.version is None else f"{self.name}/{self.version}"

    @property
    def max_tokens(self) -> int | None:
        """The tokens that every backbone reads; None where nothing is cut here."""
        limits = [h.spec.max_tokens for h in self.hosts.values() if h.spec.long_texts != "windows"]
        if not self.hosts and isinstance(self.classifier, CountsTokens):
            limits = [getattr(self.classifier, "max_tokens", self._limits.tokens_per_text)]
        return min(limits, default=None)

    async def predict(self, texts: Sequence[str], *, truncate: bool) -> Answer:
        """One prediction per task. Raises a ``RequestError``."""
        with self._busy():
            if self._batcher is not None:
                return await self._predict_alone(texts, truncate=truncate)
            views, tokens, timing = await self._read(texts, truncate=truncate)
            classifier = cast(OverBackbones, self.classifier)
            predictions, head = await self._off_loop(lambda: classifier.predict_views(views, texts))
            return self._answer(texts, tokens, timing + head, predictions=predictions)

    async def features(self, texts: Sequence[str], *, truncate: bool) -> Answer:
        """The classifier's fused features. Raises a ``RequestError``."""
        if not self.has_features:
            raise NoFeaturesError(
                f"{self.name} is a classifier of method {self.classifier.method!r}, which has no "
                "features to give"
            )
        with self._busy():
            views, tokens, timing = await self._read(texts, truncate=truncate)
            classifier = cast(OverBackbones, self.classifier)
            found, head = await self._off_loop(lambda: classifier.features_of_views(views, texts))
            return self._answer(texts, tokens, timing + head, features=found)

    async def embed(self, backbone: str, texts: Sequence[str], *, truncate: bool) -> Answer:
        """The rows of a named backbone, flat: float32 (N, R·D). Raises a ``RequestError``."""
        for host in self.hosts.values():
            if host.spec.label == backbone:
                with self._busy():
                    rows, tokens, timing = await self._rows(host, texts, truncate=truncate)
                flat = rows.reshape(len(texts), -1)
                return self._answer(texts, tokens, timing, features=flat)
        known = ", ".join(host.spec.label for host in self.hosts.values()) or "none"
        raise NoFeaturesError(f"{self.name} reads no backbone {backbone!r}; it reads: {known}")

    async def warm_up(self) -> None:
        """Answer once, so that the first client does not wait for what is made lazily."""
        words = min(64, self._limits.tokens_per_text // 10)  # within the limit, letter by letter
        await self.predict(["warm", "another " * words], truncate=True)
        if self.has_features:
            await self.features(["warm"], truncate=True)

    def close(self) -> None:
        """Take no more requests; hosts are closed by whoever shares them."""
        self.closed = True
        if self._batcher is not None:
            self._batcher.close()
        self._thread.shutdown(wait=False)

    @property
    def queued_tokens(self) -> int:
        own = 0 if self._batcher is None else self._batcher.queued_tokens
        return own + sum(host.queued_tokens for host in self.hosts.values())

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def _read(
        self, texts: Sequence[str], *, truncate: bool
    ) -> tuple[dict[str, np.ndarray], np.ndarray, Timing]:
        """View name -> (N, L, D); the texts' tokens (N,), the most of any backbone."""
        hosts = list(self.hosts.values())
        read = await asyncio.gather(*(self._rows(h, texts, truncate=truncate) for h in hosts))
        rows = {
            host.spec.fingerprint(): found for host, (found, _, _) in zip(hosts, read, strict=True)
        }
        timings = [timing for _, _, timing in read]
        classifier = cast(OverBackbones, self.classifier)
        views = {
            name: take_view(rows[view.backbone.fingerprint()], view)
            for name, view in classifier.backbones.items()
        }
        return (
            views,
            np.max([tokens for _, tokens, _ in read], axis=0),
            Timing(
                tokenise_seconds=max(t.tokenise_seconds for t in timings),
                queue_seconds=max(t.queue_seconds for t in timings),
                inference_seconds=max(t.inference_seconds for t in timings),
                usage=sum((t.usage for t in timings), Usage()),
            ),
        )

    async def _rows(
        self, host: Host, texts: Sequence[str], *, truncate: bool
    ) -> tuple[np.ndarray, np.ndarray, Timing]:
        began = time.perf_counter()
        tokens, took = await host.tokenise(texts)
        tokenised = time.perf_counter() - began
        self._check(tokens.full, tokens.kept, host.spec.label, truncate=truncate)
        batched: Batched[np.ndarray] = await host.embed(tokens)
        timing = Timing(
            tokenise_seconds=tokenised,
            queue_seconds=batched.queue_seconds,
            inference_seconds=batched.inference_seconds,
            usage=took + batched.usage,
        )
        return batched.result, tokens.full, timing

    def _check(self, full: np.ndarray, kept: np.ndarray, reader: str, *, truncate: bool) -> None:
        """Raise ``TooLongError`` for a text above the limit, or one cut without leave."""
        most = self._limits.tokens_per_text
        over = np.flatnonzero(full > most)
        if len(over):
            raise TooLongError(
                f"text {over[0]} has {full[over[0]]:,} tokens; the limit is {most:,}"
            )
        cut = np.flatnonzero(kept < full)
        if len(cut) and not truncate:
            row = cut[0]
            raise TooLongError(
                f"text {row} has {full[row]:,} tokens, of which {reader} reads {kept[row]:,}: "
                "send a shorter text, or truncate: true to have it cut"
            )

    async def _predict_alone(self, texts: Sequence[str], *, truncate: bool) -> Answer:
        """By a classifier that reads texts itself."""
        assert self._batcher is not None
        counting = Timing()
        if isinstance(self.classifier, CountsTokens):
            counter = self.classifier
            (tokens, kept), took = await self._off_loop(lambda: counter.token_counts(texts))
            counting = Timing(tokenise_seconds=took.inference_seconds, usage=took.usage)
        else:
            kept = tokens = np.array([1 + len(text) // CHARACTERS_PER_TOKEN for text in texts])
        self._check(tokens, kept, self.name, truncate=truncate)
        try:
            done = await self._batcher.submit(texts, int(kept.sum()))
        except NoAnswerError as error:
            # Its words, which may quote the endpoint's, are for the log alone.
            logger.error("%s: %s", self.label, error)
            raise AwayError(AWAY, texts=len(texts), wait_seconds=error.wait_seconds) from error
        if missing := int(unanswered_rows(done.result).sum()):
            raise AwayError(AWAY, texts=missing)
        timing = counting + Timing(
            queue_seconds=done.queue_seconds,
            inference_seconds=done.inference_seconds,
            usage=done.usage,
        )
        return self._answer(texts, tokens, timing, predictions=done.result)

    def _predict_many(self, requests: Sequence[Sequence[str]]) -> list[Mapping[str, Prediction]]:
        found = self.classifier.predict([text for texts in requests for text in texts])
        parts: list[Mapping[str, Prediction]] = []
        start = 0
        for texts in requests:
            end = start + len(texts)
            parts.append({task: rows_of(p, start, end) for task, p in found.items()})
            start = end
        return parts

    async def _off_loop(self, work: Callable[[], Any]) -> tuple[Any, Timing]:
        """What ``work`` gives, and what it took as ``inference_seconds`` and usage."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        found, usage = await loop.run_in_executor(self._thread, metered, work)
        return found, Timing(inference_seconds=time.perf_counter() - began, usage=usage)

    def _answer(
        self,
        texts: Sequence[str],
        tokens: np.ndarray,
        timing: Timing,
        *,
        predictions: Mapping[str, Prediction] | None = None,
        features: np.ndarray | None = None,
    ) -> Answer:
        return Answer(
            seat=self,
            predictions=predictions or {},
            features=features,
            tokens=tokens,
            characters=sum(map(len, texts)),
            timing=timing,
        )


def rows_of(prediction: Prediction, start: int, end: int) -> Prediction:
    """The answers to the texts from ``start`` to ``end``."""
    first, last, offsets = start, end, prediction.offsets
    if offsets is not None:
        first, last = int(offsets[start]), int(offsets[end])
        offsets = offsets[start : end + 1] - first
    return Prediction(
        labels=prediction.labels[first:last],
        scores=None if prediction.scores is None else prediction.scores[first:last],
        invalid=prediction.invalid[start:end],
        offsets=offsets,
        unanswered=None if prediction.unanswered is None else prediction.unanswered[start:end],
    )
