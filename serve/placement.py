"""Where the parts of an application stand, and what Ray Serve is told of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from llmembed.cluster.session import cores_here
from llmembed.errors import ConfigError, ModelError
from serve.model.addresses import CHALLENGER, CHAMPION, Address
from serve.model.hosting import weights_bytes
from serve.model.loading import opened

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec
    from serve.settings import Scaling, ServeSettings


def is_apart(spec: BackboneSpec, settings: ServeSettings) -> bool:
    """Whether a backbone gets a deployment of its own: as set, or by the size of its weights."""
    if settings.placement == "auto":
        return weights_bytes(spec) > settings.apart_above_bytes
    return settings.placement == "apart"


def looked_up(settings: ServeSettings) -> tuple[list[BackboneSpec], dict[str, int]]:
    """The backbones that get deployments of their own, challengers' included, and the version of
    each champion now, to fall back to if a later one can't be loaded.

    Raises ``ModelError`` for a model that can't be found, ``ConfigError`` for one named twice."""
    addresses = [Address.parse(model) for model in settings.models]
    keys = [address.key for address in addresses]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"models: {max(keys, key=keys.count)} is named twice")
    apart: dict[str, BackboneSpec] = {}
    known: dict[str, int] = {}
    for address in addresses:
        with opened(address, None, settings) as found:
            specs = list(found.backbones)
            if address.alias == CHAMPION and found.version is not None:
                known[address.name] = found.version
        if settings.challenger.mode == "split" and address.alias == CHAMPION:
            other = Address(name=address.name, alias=CHALLENGER)
            with contextlib.suppress(ModelError), opened(other, None, settings) as there:
                specs += there.backbones  # if there is one yet
        apart |= {spec.fingerprint(): spec for spec in specs if is_apart(spec, settings)}
    return list(apart.values()), known


def options_of(scaling: Scaling, settings: ServeSettings) -> dict[str, Any]:
    """What Ray Serve is told of a deployment. Requests above ``max_ongoing_requests`` wait before
    the replica; the default of 5 would leave batches empty."""
    options: dict[str, Any] = {
        "max_ongoing_requests": scaling.max_ongoing_requests,
        "max_queued_requests": 4 * scaling.max_ongoing_requests,
        "graceful_shutdown_timeout_s": settings.limits.seconds + 5,
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
    """Threads of torch in a replica of this machine: as set; or the CPUs set aside for it; or the
    cores here, shared by the fewest replicas there are."""
    if scaling.threads is None and "cpus" in scaling.model_fields_set and scaling.cpus >= 1:
        return int(scaling.cpus)
    return scaling.threads or max(1, cores_here() // max(1, scaling.min_replicas))
