"""Which classifiers a replica holds, by what requests call them, and when they are exchanged."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.backbones import BackboneSpec
from llmembed.errors import LlmembedError, ModelError
from llmembed.pipelines.answering import asks_endpoint
from llmembed.pipelines.models import REGISTERED, find_classifier
from llmembed.pipelines.prompting import cache_of
from serve.errors import UnavailableError, UnknownModelError
from serve.hosting import Host, backbones_of
from serve.seats import Seat

if TYPE_CHECKING:
    from serve.settings import ServeSettings

logger = logging.getLogger("llmembed.serve")
_GRACE_SECONDS = 1.0
_RETIRE_SECONDS = 0.05
ALIASES = ("champion", "challenger")


@dataclass(frozen=True, kw_only=True)
class Address:
    """What a model is called: a folder, or a registered name with an alias or a version."""

    name: str
    alias: str | None = None
    version: int | None = None
    folder: Path | None = None

    @classmethod
    def parse(cls, model: str) -> Address:
        """Raises ``ModelError``."""
        folder = Path(model)
        if folder.is_absolute() and folder.is_dir():
            return cls(name=folder.name, folder=folder)
        found = REGISTERED.match(model)
        if found is None:
            raise ModelError(
                f"there is no folder {model}, and it is no registered model either: "
                "write a folder, NAME, models:/NAME@champion or models:/NAME/VERSION"
            )
        version = int(found["version"]) if found["version"] else None
        alias = found["alias"] or (None if found["version"] else ALIASES[0])
        return cls(name=found["name"], alias=alias, version=version)

    @property
    def key(self) -> str:
        """What requests call it; the champion by its name alone."""
        if self.alias in (None, ALIASES[0]) and self.version is None:
            return self.name
        return f"{self.name}@{self.alias}" if self.alias else f"{self.name}/{self.version}"

    @property
    def uri(self) -> str:
        if self.folder is not None:
            return str(self.folder)
        at = f"@{self.alias}" if self.alias else f"/{self.version}"
        return f"models:/{self.name}{at}"


class Shelf:
    """The seats of one replica. ``make_host`` gives the host of a backbone, or raises
    ``LlmembedError`` where this replica may not load it; ``observe`` hears of batches."""

    def __init__(
        self,
        settings: ServeSettings,
        make_host: Callable[[BackboneSpec], Host],
        *,
        observe: Callable[[int], None] | None = None,
        swapped: Callable[[str, str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._make_host = make_host
        self._observe = observe
        self._swapped = swapped or (lambda model, result: None)
        self._addresses = [Address.parse(model) for model in settings.models]
        self._seats: dict[str, Seat] = {}
        self._others: OrderedDict[str, Seat] = OrderedDict()
        self._hosts: dict[str, Host] = {}
        self._loading = asyncio.Lock()
        self._refused: dict[str, int] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def seats(self) -> Mapping[str, Seat]:
        """Those always loaded, by what requests call them; the first is the default."""
        return self._seats

    @property
    def queued_tokens(self) -> int:
        hosts = sum(host.queued_tokens for host in self._hosts.values())
        every = [*self._seats.values(), *self._others.values()]
        return hosts + sum(seat.queued_tokens for seat in every if not seat.hosts)

    async def open(self) -> None:
        """Load and warm up every model of the settings. Raises ``LlmembedError``."""
        wanted = list(self._addresses)
        if self._settings.challenger.mode == "split":
            names = [a.name for a in wanted if a.alias == ALIASES[0]]
            wanted += [Address(name=name, alias=ALIASES[1]) for name in names]
        for address in wanted:
            if address not in self._addresses:
                self._addresses.append(address)
            # A challenger may come later.
            if address.alias == ALIASES[1] and not await asyncio.to_thread(self._holder, address):
                continue
            self._seats[address.key] = await self._load(address)

    async def get(self, model: str | None) -> Seat:
        """The seat that ``model`` names; of the models served another version is loaded when it
        is first asked for. Raises ``UnknownModelError`` or ``UnavailableError``."""
        if not model:
            return next(iter(self._seats.values()))
        seat = self._seats.get(model) or self._seats.get(model.removeprefix("models:/"))
        if seat is not None:
            return seat
        address = self._known(model)
        for seat in self._seats.values():
            if address.version is not None and seat.label == address.key:
                return seat
        return await self._other(address)

    def _known(self, model: str) -> Address:
        found = REGISTERED.match(model)
        served = {a.name for a in self._addresses if a.folder is None}
        if found is None or found["name"] not in served or len(model) > 256:
            known = ", ".join(self._seats)
            raise UnknownModelError(f"no model {model[:80]!r} is served here; known are {known}")
        return Address.parse(f"models:/{model.removeprefix('models:/')}")

    async def _other(self, address: Address) -> Seat:
        key = address.key
        if not self._settings.other_versions:
            raise UnknownModelError(f"other versions are not served here, so not {key!r}")
        async with self._loading:
            if key in self._others:
                self._others.move_to_end(key)
                return self._others[key]
            try:
                seat = await self._load(address, lock=False)
            except LlmembedError as error:
                # Where the registry lies is nothing for clients.
                logger.warning("%s can't be had: %s", key, error)
                if isinstance(error, ModelError):
                    raise UnknownModelError(f"there is no {key!r} to be had here") from error
                raise UnavailableError(f"{key} can't be loaded now; the log says why") from error
            self._others[key] = seat
            while len(self._others) > self._settings.other_versions:
                _, oldest = self._others.popitem(last=False)
                self._retire(oldest)
            return seat

    async def refresh(self) -> list[str]:
        """Look whether aliases moved, and exchange what did: the new version is loaded and warm
        before requests go to it, the old one answers those it has. Returns the names exchanged.

        A version that can't be loaded is logged once, counted, and the old one stays."""
        changed = []
        for address in self._addresses:
            if address.alias is None:
                continue
            try:
                holder = await asyncio.to_thread(self._holder, address)
            except Exception as error:  # the registry is away: go on serving
                logger.warning("can't look %s up: %s", address.key, error)
                continue
            old = self._seats.get(address.key)
            if holder is None or (old is not None and holder.version == old.version):
                continue
            if self._refused.get(address.key) == holder.version:
                continue
            try:
                self._seats[address.key] = await self._load(address)
            except Exception as error:
                self._refused[address.key] = holder.version
                self._swapped(address.key, "failed")
                logger.error("%s stays as it is: %s", address.key, error)
                continue
            self._swapped(address.key, "done")
            changed.append(address.key)
            if old is not None:
                self._retire(old)
        return changed

    def _holder(self, address: Address) -> Any:
        from llmembed.tracking import Tracking, holder_of

        assert address.alias is not None
        tracking = Tracking(self._settings.tracking_uri, files=self._settings.files)
        return holder_of(tracking, address.name, address.alias)  # type: ignore[arg-type]

    async def _load(self, address: Address, *, lock: bool = True) -> Seat:
        if lock:
            async with self._loading:
                return await self._load(address, lock=False)
        seat = await asyncio.to_thread(self._read, address)
        if not asks_endpoint(seat.classifier):  # which is paid by the call
            await seat.warm_up()
        logger.info("%s is ready, a classifier of method %s", seat.label, seat.classifier.method)
        return seat

    def _read(self, address: Address) -> Seat:
        """Find, check and load; blocking."""
        from llmembed.methods import load
        from llmembed.pipelines.answering import asked_by, load_for_run
        from llmembed.pipelines.keeping import offered_thresholds, read_validation

        version = address.version
        if address.alias is not None:
            holder = self._holder(address)
            version = None if holder is None else holder.version
        uri = address.uri if version is None else f"models:/{address.name}/{version}"
        settings = self._settings
        folder = find_classifier(uri, files=settings.files, tracking_uri=settings.tracking_uri)
        classifier = load(folder)
        if asked_by(classifier):
            classifier = load_for_run(folder, self._of_a_run(paid=asks_endpoint(classifier)))
        hosts: dict[str, Host] = {}
        for spec in backbones_of(folder):
            name = spec.fingerprint()
            if name not in self._hosts:
                self._hosts[name] = self._make_host(spec)
            hosts[name] = self._hosts[name]
        return Seat(
            classifier,
            name=address.name,
            key=address.key,
            version=version,
            alias=address.alias,
            hosts=hosts,
            batching=settings.batching,
            limits=settings.limits,
            thresholds=offered_thresholds(folder),
            reference=read_validation(folder),
            observe=self._observe,
        )

    def _of_a_run(self, *, paid: bool) -> dict[str, Any]:
        """For a classifier that asks a language model: where answers are kept, and limits."""
        settings = self._settings
        found: dict[str, Any] = {"cache": str(cache_of(settings.files))}
        limits = {"budget_usd": settings.budget_usd, "budget_tokens": settings.budget_tokens}
        return found | {name: value for name, value in limits.items() if paid and value}

    def _retire(self, seat: Seat) -> None:
        """Close a seat once its last request is answered, and hosts that no seat uses."""

        async def when_idle() -> None:
            await asyncio.sleep(_GRACE_SECONDS)  # who was just given it has not begun yet
            while seat.in_flight:
                await asyncio.sleep(_RETIRE_SECONDS)
            seat.close()
            async with self._loading:  # a seat being loaded may have taken one
                every = [*self._seats.values(), *self._others.values()]
                used = {name for other in every for name in other.hosts}
                for name in [name for name in seat.hosts if name not in used]:
                    self._hosts.pop(name).close()

        task = asyncio.create_task(when_idle())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
