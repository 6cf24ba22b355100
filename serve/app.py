"""The Ray Serve application: ingress replicas, large backbones apart, a shadow for challengers.

``serve run serve.app:app model=reviews`` or ``import_path: serve.app:app`` in a config file; what
one replica does with a request is in ``model/server.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from llmembed.backbones import BackboneSpec
from llmembed.errors import ModelError
from llmembed.permissions import loading
from serve.model.addresses import CHALLENGER, CHAMPION, Address
from serve.model.batching import Batched
from serve.model.hosting import Host, LocalHost
from serve.model.metrics import Family, Metrics
from serve.model.server import Server
from serve.model.shelf import Shelf
from serve.placement import is_apart, looked_up, options_of, threads_of
from serve.remote import RemoteHost
from serve.settings import Scaling, ServeSettings, key_digest, load_settings

if TYPE_CHECKING:
    import numpy as np

    from llmembed.backbones import TokenisedBatch
    from llmembed.contract import Prediction, Task

INGRESS = "llmembed"
SHADOW = "challenger"
GATHER_SECONDS = 5.0
logger = logging.getLogger("llmembed.serve")


@serve.deployment
class Backbone:
    """A frozen backbone by itself: token ids in, rows out, requests of all classifiers batched."""

    def __init__(self, spec: Mapping[str, Any], settings: ServeSettings) -> None:
        _let_threads_sleep()
        self.metrics = Metrics()
        with loading(settings.allow.allowed()):
            read = BackboneSpec.from_json(spec)
        self._host = LocalHost(
            read,
            batching=settings.batching,
            limits=settings.limits,
            threads=threads_of(settings.backbones),
            observe=self.metrics.batch_tokens.observe,
        )
        self._host.warm_up()

    def check_health(self) -> None:
        self._host.check()

    async def embed(self, tokens: TokenisedBatch) -> Batched[np.ndarray]:
        return await self._host.embed(tokens)

    async def families(self) -> list[Family]:
        self.metrics.queued_tokens.set(self._host.queued_tokens)
        return self.metrics.families(_replica())


@serve.deployment
class Challenger:
    """Answers copies of requests as the versions called challenger would, and compares."""

    async def __init__(self, settings: ServeSettings) -> None:  # type: ignore[misc]
        _let_threads_sleep()
        self.metrics = Metrics()
        self._settings = settings
        names = [Address.parse(model) for model in settings.models]
        served = [f"models:/{a.name}@{CHALLENGER}" for a in names if a.alias == CHAMPION]
        own = settings.model_copy(update={"models": served})
        self._shelf = Shelf(own, self._local, observe=self.metrics.batch_tokens.observe)
        await self._shelf.open()
        self._watcher = asyncio.create_task(self._watch())

    async def compare(
        self, name: str, texts: Sequence[str], given: Mapping[str, Sequence[Any]]
    ) -> None:
        """``given``: task -> the champion's answers by name; compared on the tasks of both."""
        seat = self._shelf.seats.get(f"{name}@{CHALLENGER}")
        if seat is None:
            self.metrics.shadow.labels(name, "absent").inc()
            return
        try:
            answer = await seat.predict(texts, truncate=True)
        except Exception as error:
            self.metrics.shadow.labels(name, "failed").inc()
            logger.error("the challenger of %r failed: %s", name, type(error).__name__)
            return
        own = named_answers(seat.tasks, answer.predictions)
        both = own.keys() & given.keys()
        if not both:
            self.metrics.shadow.labels(name, "incomparable").inc()
            return
        same = all(own[task] == given[task] for task in both)
        self.metrics.shadow.labels(name, "agreed" if same else "differed").inc()

    async def families(self) -> list[Family]:
        return self.metrics.families(_replica())

    def _local(self, spec: BackboneSpec) -> Host:
        settings = self._settings
        return LocalHost(
            spec,
            batching=settings.batching,
            limits=settings.limits,
            threads=threads_of(settings.ingress),
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh_seconds)
            await self._shelf.refresh()


@serve.deployment
@serve.ingress()
class Ingress:
    """One replica that answers HTTP: a ``Server``, and the way to the other deployments."""

    async def __init__(  # type: ignore[misc]
        self,
        settings: ServeSettings,
        apart: Mapping[str, DeploymentHandle[Any]],
        challenger: DeploymentHandle[Any] | None,
        known: Mapping[str, int],
    ) -> None:
        _let_threads_sleep()
        self._apart = dict(apart)
        self._challenger = challenger
        self._copies: set[asyncio.Task[None]] = set()
        self._settings = settings
        self.server = Server(
            settings,
            make_host=self._host,
            replica=_replica(),
            shadow=None if challenger is None else self._copy,
            threads=threads_of(settings.ingress),
            known=known,
        )
        self._own: DeploymentHandle[Any] | None = None
        self.server.gather = self._gather
        self.server.behind_serve = True
        await self.server.start()

    def __serve_build_asgi_app__(self) -> Any:
        from serve.http.web import build

        return build(self.server)

    def check_health(self) -> None:
        self.server.check()

    async def families(self) -> list[Family]:
        return self.server.families()

    def _host(self, spec: BackboneSpec) -> Host:
        handle = self._apart.get(spec.fingerprint())
        if handle is not None:
            return RemoteHost(spec, handle)
        if is_apart(spec, self._settings):
            raise ModelError(
                f"the backbone {spec.label} stands apart, and this application has no deployment "
                "of it: deploy it again with another `revision`"
            )
        return self.server.local_host(spec)

    def _copy(self, name: str, texts: Sequence[str], predictions: Mapping[str, Prediction]) -> None:
        """Send a copy to the challenger and go on; skipped, and counted, where too many wait."""
        assert self._challenger is not None
        if random.random() >= self._settings.challenger.share:
            return
        if len(self._copies) >= self._settings.challenger.queue:
            self.server.metrics.shadow.labels(name, "skipped").inc()
            return
        seat = self.server.shelf.seats[name]
        given = named_answers(seat.tasks, predictions)
        task = asyncio.create_task(self._compare(name, texts, given))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _compare(self, name: str, texts: Sequence[str], given: Mapping[str, Any]) -> None:
        assert self._challenger is not None
        try:
            await self._challenger.compare.remote(name, texts, given)
        except Exception:  # counted where it happened, or the replica is gone
            self.server.metrics.shadow.labels(name, "lost").inc()

    async def _gather(self) -> list[list[Family]]:
        """The counts of every replica of every deployment of this application."""
        if self._own is None:
            context = serve.get_replica_context()
            self._own = serve.get_deployment_handle(context.deployment, context.app_name)
        handles = [self._own, *self._apart.values()]
        if self._challenger is not None:
            handles.append(self._challenger)
        found = await asyncio.gather(
            *(
                asyncio.wait_for(handle.broadcast("families").results_async(), GATHER_SECONDS)
                for handle in handles
            ),
            return_exceptions=True,
        )
        told = [one for many in found if not isinstance(many, BaseException) for one in many]
        # A replica that is dying takes its deployment's figures along; ours are always told.
        return told if not isinstance(found[0], BaseException) else [self.server.families(), *told]


def named_answers(
    tasks: Sequence[Task], predictions: Mapping[str, Prediction]
) -> dict[str, list[Any]]:
    """Task -> for each answer the names of its classes: two versions may number them otherwise."""
    found: dict[str, list[Any]] = {}
    for task in tasks:
        labels = predictions[task.name].labels
        if task.kind == "multi":
            found[task.name] = [[task.classes[i] for i in row.nonzero()[0]] for row in labels]
        else:
            found[task.name] = [task.classes[i] if i >= 0 else None for i in labels.tolist()]
    return found


def _let_threads_sleep() -> None:
    """Before torch is loaded: its idle threads spin by default, on cores that answer requests."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _replica() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


def app(args: dict[str, Any]) -> serve.Application:
    """The application for ``args``, the settings of ``ServeSettings`` with keys dotted or nested.

    What replicas must agree on is settled here: the registry's address, and the key, of which
    they are told the SHA-256. Raises ``ConfigError`` or ``ModelError``."""
    from llmembed.tracking import resolve_uri

    settings = load_settings(args)
    digest = key_digest(settings)
    settings = settings.model_copy(
        update={
            "tracking_uri": resolve_uri(settings.tracking_uri, settings.files),
            "api_key_sha256": None if digest is None else digest.hex(),
            "api_key_env": None,
        }
    )
    backbones, known = looked_up(settings)
    apart: dict[str, Any] = {}
    for spec in backbones:
        fingerprint = spec.fingerprint()
        named = _deployed(Backbone).options(
            name=f"backbone-{spec.label}-{fingerprint[:6]}",
            **options_of(settings.backbones, settings),
        )
        apart[fingerprint] = named.bind(spec.to_json(), settings)
    challenger = None
    if settings.challenger.mode == "shadow":
        alone = Scaling(cpus=settings.ingress.cpus, gpus=settings.ingress.gpus)
        shadow = _deployed(Challenger).options(name=SHADOW, **options_of(alone, settings))
        challenger = shadow.bind(settings)
    ingress = _deployed(Ingress).options(name=INGRESS, **options_of(settings.ingress, settings))
    application: serve.Application = ingress.bind(settings, apart, challenger, known)
    return application


def _deployed(decorated: Any) -> serve.Deployment:
    """What ``@serve.deployment`` makes of a class, which type checkers take for the class."""
    assert isinstance(decorated, serve.Deployment)
    return decorated
