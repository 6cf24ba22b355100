"""Which classifiers a replica holds, by what requests call them, and when they are exchanged."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmembed.backbones import BackboneSpec
from llmembed.errors import LlmembedError, ModelError
from serve.errors import LateError, UnavailableError, UnknownModelError
from serve.model.addresses import CHALLENGER, CHAMPION, Address
from serve.model.loading import holder_of, opened
from serve.model.seats import Seat

if TYPE_CHECKING:
    from serve.model.hosting import Host
    from serve.settings import ServeSettings

logger = logging.getLogger("llmembed.serve")
_GRACE_SECONDS = 1.0
_RETIRE_SECONDS = 0.05
_RETRY_SECONDS = (30.0, 3600.0)
"""After a version could not be loaded: the first pause before it is tried again, and the longest;
each is twice the one before."""


class Shelf:
    """The seats of one replica. ``make_host`` gives the host of a backbone, or raises
    ``LlmembedError`` where this replica may not load it; ``observe`` hears of batches. ``known``:
    registered name -> the version to fall back to when its champion can't be loaded at the
    start."""

    def __init__(
        self,
        settings: ServeSettings,
        make_host: Callable[[BackboneSpec], Host],
        *,
        observe: Callable[[int], None] | None = None,
        swapped: Callable[[str, str], None] | None = None,
        known: Mapping[str, int] | None = None,
    ) -> None:
        self._settings = settings
        self._make_host = make_host
        self._observe = observe
        self._swapped = swapped or (lambda model, result: None)
        self._known_good = dict(known or {})
        self._addresses = [Address.parse(model) for model in settings.models]
        self._seats: dict[str, Seat] = {}
        self._others: OrderedDict[str, Seat] = OrderedDict()
        self._hosts: dict[str, Host] = {}
        self._loading = asyncio.Lock()
        self._coming: dict[str, asyncio.Task[Seat]] = {}
        self._failed: dict[str, tuple[int, float, float]] = {}
        self._retiring: dict[asyncio.Task[None], Seat] = {}

    @property
    def seats(self) -> Mapping[str, Seat]:
        """Those always loaded, by what requests call them, in the order of the settings."""
        keys = [address.key for address in self._addresses]
        return {key: self._seats[key] for key in keys if key in self._seats}

    @property
    def hosts(self) -> list[Host]:
        return list(self._hosts.values())

    @property
    def queued_tokens(self) -> int:
        hosts = sum(host.queued_tokens for host in self.hosts)
        every = [*list(self._seats.values()), *list(self._others.values())]
        return hosts + sum(seat.queued_tokens for seat in every if not seat.hosts)

    async def open(self) -> None:
        """Load and warm up every model of the settings. A challenger may be absent, or fail to
        load: it is looked for again. Raises ``LlmembedError``."""
        if self._settings.challenger.mode == "split":
            for address in list(self._addresses):
                other = Address(name=address.name, alias=CHALLENGER)
                if address.alias == CHAMPION and other not in self._addresses:
                    self._addresses.append(other)
        for address in self._addresses:
            try:
                if address.alias == CHALLENGER and not await self._holder(address):
                    continue
                self._seats[address.key] = await self._load(address)
            except Exception as error:
                fallback = self._known_good.get(address.name)
                if address.alias == CHALLENGER:
                    logger.error("%r is not served: %s", address.key, error)
                    self._swapped(address.key, "failed")
                elif address.alias == CHAMPION and fallback is not None:
                    logger.error("%r: version %s instead: %s", address.key, fallback, error)
                    self._swapped(address.key, "failed")
                    self._seats[address.key] = await self._load(address, version=fallback)
                else:
                    raise

    async def get(self, model: str | None) -> Seat:
        """The seat that ``model`` names; of the models served another version is loaded when it
        is first asked for. Raises ``UnknownModelError``, ``UnavailableError`` or ``LateError``."""
        if not model:
            if not self._seats:
                raise UnavailableError("no model is loaded yet")
            return next(iter(self.seats.values()))
        seat = self._seats.get(model) or self._seats.get(model.removeprefix("models:/"))
        if seat is not None:
            return seat
        address = self._known(model)
        if address.key in self._seats:
            return self._seats[address.key]
        if address.alias is not None:  # followed at each request; a version is what is kept
            holder = await self._in_time(asyncio.ensure_future(self._holder(address)))
            if holder is None:
                raise UnknownModelError(f"{address.name} has no version called {address.alias!r}")
            address = Address(name=address.name, version=holder.version)
        for seat in list(self._seats.values()):
            if seat.label == address.key:
                return seat
        return await self._other(address)

    def _known(self, model: str) -> Address:
        served = {a.name for a in self._addresses if a.folder is None}
        address = Address.registered(model) if len(model) <= 256 else None
        if address is None or address.name not in served:
            known = ", ".join(self.seats)
            raise UnknownModelError(f"no model {model[:80]!r} is served here; known are {known}")
        return address

    async def _other(self, address: Address) -> Seat:
        key = address.key
        if not self._settings.other_versions:
            raise UnknownModelError(f"other versions are not served here, so not {key!r}")
        if key in self._others:
            self._others.move_to_end(key)
            return self._others[key]
        # Goes on when who asked has left: the next one finds it loaded.
        task = self._coming.get(key)
        if task is None:
            task = self._coming[key] = asyncio.create_task(self._load(address))
            task.add_done_callback(lambda done: self._arrived(key, done))
        try:
            seat: Seat = await self._in_time(task)
            return seat
        except ModelError as error:
            logger.warning("%r was asked for: %s", key, error)
            raise UnknownModelError(f"there is no {key!r}") from error
        except LlmembedError as error:
            raise UnavailableError(str(error)) from error

    def _arrived(self, key: str, task: asyncio.Task[Seat]) -> None:
        self._coming.pop(key, None)
        if task.cancelled() or task.exception() is not None:
            return
        self._others[key] = task.result()
        while len(self._others) > self._settings.other_versions:
            _, oldest = self._others.popitem(last=False)
            self._retire(oldest)

    async def _in_time(self, task: asyncio.Future[Any]) -> Any:
        seconds = self._settings.limits.seconds
        try:
            return await asyncio.wait_for(asyncio.shield(task), seconds)
        except TimeoutError:
            raise LateError(f"the model was not loaded within {seconds:g} s") from None

    async def refresh(self) -> list[str]:
        """Look whether aliases moved, and exchange what did: the new version is loaded and warm
        before requests go to it, the old one answers those it has. Returns the names exchanged.

        A version that can't be loaded is logged and counted, and the old one stays; it is tried
        again after a pause that grows. A challenger whose alias is gone is no longer served."""
        changed = []
        for address in self._addresses:
            if address.alias is None:
                continue
            try:
                holder = await self._holder(address)
            except Exception as error:  # the registry is away: go on serving
                logger.warning("can't look %r up: %s", address.key, error)
                continue
            old = self._seats.get(address.key)
            if holder is None:
                if old is not None and address.alias == CHALLENGER:
                    self._retire(self._seats.pop(address.key))
                    changed.append(address.key)
                continue
            if old is not None and (old.version, old.run_id) == (holder.version, holder.run_id):
                continue
            if await self._exchange(address, holder.version, old):
                changed.append(address.key)
        return changed

    async def _exchange(self, address: Address, version: int, old: Seat | None) -> bool:
        failed, again, pause = self._failed.get(address.key, (0, 0.0, 0.0))
        if failed == version and time.monotonic() < again:
            return False
        try:
            self._seats[address.key] = await self._load(address)
        except Exception as error:
            first, longest = _RETRY_SECONDS
            pause = min(2 * pause, longest) if failed == version else first
            self._failed[address.key] = (version, time.monotonic() + pause, pause)
            self._swapped(address.key, "failed")
            logger.error("%r stays as it is for %g s: %s", address.key, pause, error)
            return False
        self._failed.pop(address.key, None)
        self._swapped(address.key, "done")
        if old is not None:
            self._retire(old)
        return True

    async def _holder(self, address: Address) -> Any:
        return await asyncio.to_thread(holder_of, address, self._settings)

    async def _load(self, address: Address, *, version: int | None = None) -> Seat:
        """The version given, or the one that ``address`` means now; warm."""
        from llmembed.pipelines.predict.endpoint import asks_endpoint

        async with self._loading:
            before = set(self._hosts)
            try:
                seat = await asyncio.to_thread(self._read, address, version)
                if not asks_endpoint(seat.classifier):  # which is paid by the call
                    await seat.warm_up()
            except BaseException:
                for name in set(self._hosts) - before:
                    self._hosts.pop(name).close()
                raise
        logger.info("%r is ready, a classifier of method %s", seat.label, seat.classifier.method)
        return seat

    def _read(self, address: Address, version: int | None) -> Seat:
        """Find, check and load; blocking."""
        settings = self._settings
        with opened(address, version, settings) as found:
            hosts: dict[str, Host] = {}
            for spec in found.backbones:
                name = spec.fingerprint()
                if name not in self._hosts:
                    self._hosts[name] = self._make_host(spec)
                hosts[name] = self._hosts[name]
            return Seat(
                found.classifier,
                name=address.name,
                key=address.key,
                version=found.version,
                alias=address.alias,
                run_id=found.run_id,
                hosts=hosts,
                batching=settings.batching,
                limits=settings.limits,
                thresholds=found.thresholds,
                reference=found.reference,
                observe=self._observe,
            )

    def _retire(self, seat: Seat) -> None:
        """Close a seat once its last request is answered, and hosts that no seat uses."""

        async def when_idle() -> None:
            await asyncio.sleep(_GRACE_SECONDS)  # who was just given it has not begun yet
            while seat.in_flight:
                await asyncio.sleep(_RETIRE_SECONDS)
            seat.close()
            async with self._loading:  # a seat being loaded may have taken one
                others = [s for s in self._retiring.values() if s is not seat]
                every = [*self._seats.values(), *self._others.values(), *others]
                used = {name for other in every for name in other.hosts}
                for name in [name for name in seat.hosts if name not in used]:
                    host = self._hosts.pop(name, None)
                    if host is not None:
                        host.close()

        task = asyncio.create_task(when_idle())
        self._retiring[task] = seat
        task.add_done_callback(lambda done: self._retiring.pop(done, None))
