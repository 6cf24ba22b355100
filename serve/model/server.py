"""What one replica does with a request, from texts to an answer; it knows nothing of Ray or HTTP.

::

    texts ──► Shelf.get(model) ──► Seat: tokenise ─► batch ─► backbone ─► head ──► Answer
                                     └── metrics, drift, a copy for the challenger
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmembed.contract import Prediction
from serve.errors import AwayError, LateError, RequestError, TooLargeError
from serve.model.addresses import CHALLENGER, CHAMPION
from serve.model.drift import Drift
from serve.model.hosting import Host, LocalHost
from serve.model.metrics import Family, Metrics, exposition
from serve.model.seats import Answer, Seat
from serve.model.shelf import Shelf
from serve.settings import ServeSettings, key_digest

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec

logger = logging.getLogger("llmembed.serve")
Shadow = Callable[[str, Sequence[str], Mapping[str, Prediction]], None]


class Server:
    """The classifiers of one replica and what it counts.

    ``make_host`` places a backbone; by default in this process. ``shadow`` takes a copy of a
    request and returns at once. ``threads``: of torch, in this process. ``known``: see ``Shelf``.
    Raises ``ConfigError`` for an empty key.
    """

    def __init__(
        self,
        settings: ServeSettings,
        *,
        make_host: Callable[[BackboneSpec], Host] | None = None,
        replica: str = "0",
        shadow: Shadow | None = None,
        threads: int | None = None,
        known: Mapping[str, int] | None = None,
    ) -> None:
        self.settings = settings
        self.key = key_digest(settings)
        self.replica = replica
        self.metrics = Metrics()
        self.shadow = shadow
        self.gather: Callable[[], Awaitable[Sequence[Sequence[Family]]]] | None = None
        self._threads = threads
        self.shelf = Shelf(
            settings,
            make_host or self.local_host,
            observe=self.metrics.batch_tokens.observe,
            swapped=self._swapped,
            known=known,
        )
        self._drift: weakref.WeakKeyDictionary[Seat, Drift] = weakref.WeakKeyDictionary()
        self._watcher: asyncio.Task[None] | None = None
        self._started = False
        self.behind_serve = False

    async def start(self) -> None:
        """Load and warm up all models, then watch their aliases. Raises ``LlmembedError``."""
        await self.shelf.open()
        self._note_loaded()
        self._watcher = asyncio.create_task(self._watch())
        self._started = True

    @property
    def ready(self) -> bool:
        """Whether a model is loaded and warm."""
        return self._started and bool(self.shelf.seats)

    def check(self) -> None:
        """Raise ``WorkerError`` when a backbone here fails whatever it is asked."""
        for host in self.shelf.hosts:
            host.check()

    def accepts(self, key: bytes) -> bool:
        """Whether ``key`` is the one asked for, told in constant time."""
        return self.key is not None and hmac.compare_digest(hashlib.sha256(key).digest(), self.key)

    async def stop(self) -> None:
        self._started = False
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    async def predict(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        truncate: bool | None = None,
        request_id: str = "",
        counted: bool = True,
    ) -> Answer:
        """Predictions of all tasks of ``model``; ``counted`` false for texts that no client wrote,
        which say nothing about drift. Raises a ``RequestError``."""
        if counted:
            refuse_blank(texts)
        seat = self._split(await self._seat(texts, model), model, request_id)
        try:
            answer = await self._in_time(seat.predict(texts, truncate=self._truncate(truncate)))
        except AwayError as error:
            self.metrics.unanswered.labels(seat.key).inc(error.texts)
            raise
        self._count(answer)
        if not counted:
            return answer
        if seat not in self._drift:
            self._drift[seat] = Drift(seat.tasks, seat.reference)
        self._drift[seat].saw(answer.predictions)
        self._count_answers(answer)
        if self.shadow is not None and seat.alias == CHAMPION:
            self.shadow(seat.name, texts, answer.predictions)
        return answer

    async def features(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        backbone: str | None = None,
        truncate: bool | None = None,
        request_id: str = "",
    ) -> Answer:
        """The fused features of ``model``, or the rows of one of its backbones. Raises a
        ``RequestError``."""
        refuse_blank(texts)
        seat = await self._seat(texts, model)
        cut = self._truncate(truncate)
        if backbone is None:
            answer = await self._in_time(seat.features(texts, truncate=cut))
        else:
            answer = await self._in_time(seat.embed(backbone, texts, truncate=cut))
        self._count(answer)
        return answer

    def families(self) -> list[Family]:
        """This replica's counts, now."""
        self.metrics.queued_tokens.set(self.shelf.queued_tokens)
        self.metrics.drift.clear()  # of versions that have retired
        for seat, drift in list(self._drift.items()):
            if seat.closed:
                continue
            for (task, of), index in drift.indices().items():
                self.metrics.drift.labels(seat.label, task, of).set(index)
        return self.metrics.families(self.replica)

    async def exposition(self) -> bytes:
        """The counts of all replicas, as Prometheus reads them."""
        return exposition([self.families()] if self.gather is None else await self.gather())

    def _truncate(self, asked: bool | None) -> bool:
        return self.settings.truncate if asked is None else asked

    async def _seat(self, texts: Sequence[str], model: str | None) -> Seat:
        most = self.settings.limits.texts
        if len(texts) > most:
            raise TooLargeError(f"{len(texts)} texts in one request; the limit is {most}")
        return await self.shelf.get(model)

    def _split(self, seat: Seat, model: str | None, request_id: str) -> Seat:
        """The challenger's seat for its share of the requests that left the version open, if it
        answers the same tasks."""
        challenger = self.settings.challenger
        if (
            challenger.mode != "split"
            or seat.alias != CHAMPION
            or model not in (None, "", seat.key)
        ):
            return seat
        other = self.shelf.seats.get(f"{seat.name}@{CHALLENGER}")
        if other is None or [t.name for t in other.tasks] != [t.name for t in seat.tasks]:
            return seat
        # By the request's id, so that one repeated goes the same way.
        drawn = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:4]) / 2**32
        return other if drawn < challenger.share else seat

    async def _in_time(self, work: Awaitable[Answer]) -> Answer:
        seconds = self.settings.limits.seconds
        try:
            return await asyncio.wait_for(work, seconds)
        except TimeoutError:
            raise LateError(f"no answer within {seconds:g} s") from None

    def local_host(self, spec: BackboneSpec) -> Host:
        """A backbone in this process."""
        return LocalHost(
            spec,
            batching=self.settings.batching,
            limits=self.settings.limits,
            threads=self._threads,
            observe=self.metrics.batch_tokens.observe,
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.settings.refresh_seconds)
            try:
                if await self.shelf.refresh():
                    self._note_loaded()
            except Exception:
                logger.exception("looking for new versions failed; it is tried again")

    def _note_loaded(self) -> None:
        self.metrics.loaded.clear()
        for seat in self.shelf.seats.values():
            self.metrics.loaded.labels(seat.key, str(seat.version or "")).set(1)

    def _swapped(self, model: str, result: str) -> None:
        self.metrics.swaps.labels(model, result).inc()

    def _count(self, answer: Answer) -> None:
        metrics, timing = self.metrics, answer.timing
        metrics.queue_seconds.observe(timing.queue_seconds)
        metrics.tokens.labels(answer.seat.key).inc(float(answer.tokens.sum()))
        metrics.request_joules.observe(timing.usage.energy_joules)
        metrics.joules.labels("measured").inc(sum(timing.usage.measured_joules.values()))
        metrics.joules.labels("estimated").inc(sum(timing.usage.estimated_joules.values()))

    def _count_answers(self, answer: Answer) -> None:
        for task in answer.seat.tasks:
            if task.kind == "single":
                for label in answer.predictions[task.name].labels.tolist():
                    name = task.classes[label] if label >= 0 else "invalid"
                    self.metrics.answers.labels(answer.seat.key, task.name, name).inc()


def refuse_blank(texts: Sequence[str]) -> None:
    """Raise ``RequestError`` for a text of a client's that says nothing."""
    for number, text in enumerate(texts):
        if not text or text.isspace():
            raise RequestError(f"text {number} is empty or white space only")
