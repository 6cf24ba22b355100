"""A backbone in a deployment of its own, seen from an ingress replica."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc.aio import AioRpcError
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve.errors import OverloadedError, RequestError, UnavailableError
from serve.model.hosting import Tokenising

if TYPE_CHECKING:
    import numpy as np
    from ray.serve.handle import DeploymentHandle

    from llmembed.backbones import BackboneSpec, TokenisedBatch
    from serve.model.batching import Batched

TRIES = 4
WAIT_SECONDS = 0.1
"""Before the second try; doubled each time. A request asked twice is answered twice the same."""


class RemoteHost(Tokenising):
    """Tokenises here, embeds there. A replica that dies is asked no more: the request goes to
    another one."""

    def __init__(self, spec: BackboneSpec, handle: DeploymentHandle[Any]) -> None:
        super().__init__(spec)
        self._handle = handle

    async def embed(self, tokens: TokenisedBatch) -> Batched[np.ndarray]:
        wait = WAIT_SECONDS
        for attempt in range(1, TRIES + 1):
            try:
                done: Batched[np.ndarray] = await self._handle.embed.remote(tokens)
                return done
            except BackPressureError:
                raise OverloadedError(
                    f"the backbone {self.spec.label} is overloaded: come again"
                ) from None
            except RayTaskError as error:
                if isinstance(error.cause, RequestError):
                    raise error.cause from None
                raise
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # our own client left; otherwise the replica was stopped at its work
            except (RayActorError, DeploymentUnavailableError, AioRpcError):
                pass
            if attempt < TRIES:
                await asyncio.sleep(wait)
                wait *= 2
        raise UnavailableError(f"no replica of the backbone {self.spec.label} answers")

    @property
    def queued_tokens(self) -> int:
        return 0  # they wait there

    def check(self) -> None:
        return None  # it is checked there

    def close(self) -> None:
        return None
