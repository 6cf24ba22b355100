"""The Ray Serve application: ingress replicas, large backbones apart, a shadow for challengers.

``serve run serve.app:app model=reviews`` or ``import_path: serve.app:app`` in a config file; what
one replica does with a request is in ``server.py``.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from llmembed.backbones import BackboneSpec
from llmembed.cluster.session import cores_here
from llmembed.errors import ConfigError, ModelError
from serve.batching import Batched
from serve.hosting import Host, LocalHost, backbones_of, weights_bytes
from serve.metrics import Family, Metrics
from serve.remote import RemoteHost
from serve.server import Server
from serve.settings import Scaling, ServeSettings, load_settings
from serve.shelf import ALIASES, Address, Shelf

if TYPE_CHECKING:
    import numpy as np

    from llmembed.backbones import TokenisedBatch
    from llmembed.contract import Prediction

INGRESS = "llmembed"
SHADOW = "challenger"


@serve.deployment
class Backbone:
    """A frozen backbone by itself: token ids in, rows out, requests of all classifiers batched."""

    def __init__(self, spec: Mapping[str, Any], settings: ServeSettings, threads: int) -> None:
        _let_threads_sleep()
        self.metrics = Metrics()
        self._host = LocalHost(
            BackboneSpec.from_json(spec),
            batching=settings.batching,
            limits=settings.limits,
            threads=threads,
            observe=self.metrics.batch_tokens.observe,
        )

    async def embed(self, tokens: TokenisedBatch) -> Batched[np.ndarray]:
        return await self._host.embed(tokens)

    async def families(self) -> list[Family]:
        self.metrics.queued_tokens.set(self._host.queued_tokens)
        return self.metrics.families(_replica())


@serve.deployment
class Challenger:
    """Answers copies of requests as the versions called challenger would, and compares."""

    async def __init__(self, settings: ServeSettings, threads: int) -> None:  # type: ignore[misc]
        _let_threads_sleep()
        self.metrics = Metrics()
        self._threads = threads
        self._settings = settings
        names = [Address.parse(model) for model in settings.models]
        served = [f"models:/{a.name}@{ALIASES[1]}" for a in names if a.alias == ALIASES[0]]
        own = settings.model_copy(update={"models": served})
        self._shelf = Shelf(own, self._local, observe=self.metrics.batch_tokens.observe)
        await self._shelf.open()
        self._watcher = asyncio.create_task(self._watch())

    async def compare(
        self, name: str, texts: Sequence[str], given: Mapping[str, Sequence[Any]]
    ) -> None:
        """``given``: task -> labels of the champion."""
        seat = self._shelf.seats.get(f"{name}@{ALIASES[1]}")
        if seat is None:
            self.metrics.shadow.labels(name, "absent").inc()
            return
        try:
            answer = await seat.predict(texts, truncate=True)
            same = all(
                answer.predictions[task].labels.tolist() == labels for task, labels in given.items()
            )
        except Exception:
            self.metrics.shadow.labels(name, "failed").inc()
            raise
        self.metrics.shadow.labels(name, "agreed" if same else "differed").inc()

    async def families(self) -> list[Family]:
        return self.metrics.families(_replica())

    def _local(self, spec: BackboneSpec) -> Host:
        settings = self._settings
        return LocalHost(
            spec, batching=settings.batching, limits=settings.limits, threads=self._threads
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
        threads: int,
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
            threads=threads,
        )
        self._own: DeploymentHandle[Any] | None = None
        self.server.gather = self._gather
        self.server.behind_serve = True
        await self.server.start()

    def __serve_build_asgi_app__(self) -> Any:
        from serve.web import build

        return build(self.server)

    async def families(self) -> list[Family]:
        return self.server.families()

    def _host(self, spec: BackboneSpec) -> Host:
        handle = self._apart.get(spec.fingerprint())
        if handle is not None:
            return RemoteHost(spec, handle)
        if is_apart(spec, self._settings):
            raise ModelError(
                f"the backbone {spec.label} stands apart, and this application has no deployment "
                "of it: deploy it again"
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
        given = {task: p.labels.tolist() for task, p in predictions.items()}
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
            *(handle.broadcast("families").results_async() for handle in handles),
            return_exceptions=True,
        )
        told = [one for many in found if not isinstance(many, BaseException) for one in many]
        return told or [self.server.families()]


def _let_threads_sleep() -> None:
    """Before torch is loaded: its idle threads spin by default, on cores that answer requests."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def _replica() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


def is_apart(spec: BackboneSpec, settings: ServeSettings) -> bool:
    """Whether a backbone gets a deployment of its own: as set, or by the size of its weights."""
    if settings.placement == "auto":
        return weights_bytes(spec) > settings.apart_above_bytes
    return settings.placement == "apart"


def apart_of(settings: ServeSettings) -> list[BackboneSpec]:
    """The backbones of all models served that get deployments of their own.

    Raises ``ModelError`` for a model that can't be found, ``ConfigError`` for one named twice."""
    from llmembed.pipelines.models import find_classifier

    found: dict[str, BackboneSpec] = {}
    addresses = [Address.parse(model) for model in settings.models]
    keys = [address.key for address in addresses]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"models: {max(keys, key=keys.count)} is named twice")
    for address in addresses:
        uri = address.uri
        folder = find_classifier(uri, files=settings.files, tracking_uri=settings.tracking_uri)
        for spec in backbones_of(folder):
            if is_apart(spec, settings):
                found[spec.fingerprint()] = spec
    return list(found.values())


def options_of(scaling: Scaling) -> dict[str, Any]:
    """What Ray Serve is told of a deployment. Requests above ``max_ongoing_requests`` wait before
    the replica; the default of 5 would leave batches empty."""
    options: dict[str, Any] = {
        "max_ongoing_requests": scaling.max_ongoing_requests,
        "ray_actor_options": {"num_cpus": scaling.cpus, "num_gpus": scaling.gpus},
    }
    if scaling.min_replicas == scaling.max_replicas:
        return {**options, "num_replicas": scaling.max_replicas}
    return {
        **options,
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_ongoing_requests,
        },
    }


def threads_of(scaling: Scaling) -> int:
    """Threads of torch in each replica: the cores here, shared by the fewest replicas there are."""
    return scaling.threads or max(1, cores_here() // max(1, scaling.min_replicas))


def app(args: dict[str, Any]) -> serve.Application:
    """The application for ``args``, the settings of ``ServeSettings`` with keys dotted or nested.

    Raises ``ConfigError`` or ``ModelError``."""
    settings = load_settings(args)
    apart: dict[str, Any] = {}
    for spec in apart_of(settings):
        fingerprint = spec.fingerprint()
        named = _deployed(Backbone).options(
            name=f"backbone-{spec.label}-{fingerprint[:6]}", **options_of(settings.backbones)
        )
        apart[fingerprint] = named.bind(spec.to_json(), settings, threads_of(settings.backbones))
    threads = threads_of(settings.ingress)
    challenger = None
    if settings.challenger.mode == "shadow":
        alone = Scaling(cpus=settings.ingress.cpus, gpus=settings.ingress.gpus)
        challenger = (
            _deployed(Challenger).options(name=SHADOW, **options_of(alone)).bind(settings, threads)
        )
    ingress = _deployed(Ingress).options(name=INGRESS, **options_of(settings.ingress))
    application: serve.Application = ingress.bind(settings, apart, challenger, threads)
    return application


def _deployed(decorated: Any) -> serve.Deployment:
    """What ``@serve.deployment`` makes of a class, which type checkers take for the class."""
    assert isinstance(decorated, serve.Deployment)
    return decorated
