"""Waiting for weights that the site's replicator has yet to bring, or must copy again because they are wrong."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import ray
from ray import serve

from clusters.render import REPLICATOR_APP
from weights.errors import Corrupt, ReleaseMissing

logger = logging.getLogger("ray.serve")

MENDING_TIMEOUT_S = 900.0
MENDING_INTERVAL_S = 10.0

T = TypeVar("T")


async def mended(load: Callable[[], Awaitable[T]], model: str, release: str) -> T:
    """What `load` gives. Corrupt bytes in the store are told, and waited for to be replaced. Raises WeightsError."""
    deadline = time.monotonic() + MENDING_TIMEOUT_S
    while True:
        try:
            return await load()
        except (Corrupt, ReleaseMissing) as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("%s %s can't be loaded yet: %s", model, release, error)
            if isinstance(error, Corrupt):
                await asyncio.to_thread(_suspect, model, release)
        await asyncio.sleep(MENDING_INTERVAL_S)


def _suspect(model: str, release: str) -> None:
    """Has the site's replicator look at the release: this node read wrong bytes of it, again and again."""
    try:
        serve.get_app_handle(REPLICATOR_APP).suspect.remote(model, release)
    except (ray.exceptions.RayError, serve.exceptions.RayServeException) as error:
        logger.warning("the replicator could not be told that %s %s is corrupt: %s", model, release, error)
