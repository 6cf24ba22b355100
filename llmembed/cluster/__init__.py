"""Where work is done: the actors of a Ray cluster, or this process.

::

    session        start a local Ray, or connect to the cluster a job runs on
    sizing         how many actors, and how many cores or GPUs each
    ray_runtime    RayRuntime: map_texts on Ray Data
    datasets       rows through stages, as Ray Data is told it
    stages         what its actors and tasks do
    train          RayRuntime.train on Ray Train
    sharding       how many workers train a model, by which ZeRO stage, and why
    portions       how many trainings at once fit a cluster, and what each may use
    deepspeed      DeepSpeed's configuration
    mailbox        what a worker reports, told to the driver as it comes
    failures       a worker's error as one sentence
    progress       the bar on a terminal
    local_runtime  LocalRuntime: the in-process twin for tests and tiny inputs

Ray Data and Ray Train are used here and nowhere else. Importing this room does not import Ray.
"""

from __future__ import annotations

from llmembed.cluster.local_runtime import LocalRuntime
from llmembed.cluster.ray_runtime import RayRuntime
from llmembed.cluster.session import connect, disconnect

__all__ = ["LocalRuntime", "RayRuntime", "connect", "disconnect"]
