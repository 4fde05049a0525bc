"""On spot nodes: hears the provider take the node back, has Ray drain it, and tells the site agent."""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray import serve
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
from ray.exceptions import RayError
from ray.experimental.internal_kv import internal_kv_get_gcs_client
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clusters.notices.notice import NoticeSource
from clusters.notices.watching import reader, watch
from clusters.render import AGENT_APP
from clusters.state import NodeNotice

logger = logging.getLogger("ray.serve")

METADATA_URL = "RAYFLEET_METADATA_URL"
"""Environment variable of a node: a metadata server instead of the provider's own. For tests and emulators."""
LOOK_INTERVAL_S = 3.0
TELL_INTERVAL_S = 2.0
DRAIN_RETRY_S = 1.0
LEAST_DRAIN_S = 10.0
"""For which Ray is asked at least: what begins at once still takes a while."""
TIMEOUT_S = 5.0
MARGIN_S = 3.0
"""Ray ends the node's replicas so long before the machine goes: a stream that is reset goes on elsewhere at once, one
of a machine that vanished only after `continuation.stall_s`."""


class Watchers:
    """Keeps one watcher on every node of some pools. `pools` says, by pool, whom its nodes are to ask."""

    def __init__(self, pools: Mapping[str, NoticeSource]):
        self._pools = {pool: source for pool, source in pools.items() if source is not NoticeSource.NONE}

    async def keep(self) -> None:
        """For ever. New nodes get a watcher, and so do nodes whose watcher has ended."""
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    nodes = watched(await asyncio.to_thread(ray.nodes), self._pools)
                except RayError as error:
                    logger.warning("Ray does not tell its nodes, so new ones are not watched yet: %s", error)
                else:
                    for node in tasks.keys() - nodes.keys():
                        tasks.pop(node).cancel()
                    for node, pool in nodes.items():
                        if node not in tasks or tasks[node].done():
                            tasks[node] = group.create_task(self._watch(node, pool))
                await asyncio.sleep(LOOK_INTERVAL_S)

    async def _watch(self, node: str, pool: str) -> None:
        """Returns when the node's watcher has ended."""
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        watcher = _NodeWatcher.options(scheduling_strategy=here).remote(node, pool, self._pools[pool])
        try:
            await watcher.run.remote()
        except RayError as error:
            logger.warning("nobody watches node %s of pool %s for a few seconds: %s", node, pool, error)
        finally:
            # It would run for ever: Ray lets an actor that nobody holds any more finish what it was told to do.
            ray.kill(watcher)


def watched(nodes: Iterable[Mapping[str, Any]], pools: Iterable[str]) -> dict[str, str]:
    """The pool of each living node, by node id, as far as it is one of `pools`."""
    resources = {f"pool:{pool}": pool for pool in pools}
    return {
        node["NodeID"]: resources[resource]
        for node in nodes
        if node["Alive"]
        for resource in node["Resources"].keys() & resources.keys()
    }


class NodeWatcher:
    """Runs on the node that it watches, since only that can ask its provider's metadata server."""

    def __init__(self, node: str, pool: str, source: NoticeSource):
        self._node = node
        self._pool = pool
        self._reader = reader(source, os.environ.get(METADATA_URL))
        self._notice: NodeNotice | None = None
        self._ends_at = 0.0
        """By the monotonic clock."""
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            async for heard in watch(self._reader, logger):
                notice = NodeNotice(node=self._node, pool=self._pool, ends_at=heard.ends_at, message=heard.message)
                remaining_s = max(0.0, notice.ends_at - time.time())
                logger.warning(
                    "node %s of pool %s is taken back in %.0f s: %s", self._node, self._pool, remaining_s, heard.message
                )
                self._notice = notice
                self._ends_at = time.monotonic() + remaining_s
                self._heard.set()
                group.create_task(self._drain(notice, remaining_s))

    async def _drain(self, notice: NodeNotice, remaining_s: float) -> None:
        """Nothing new is placed on the node, and Serve starts replacements elsewhere before it ends what is here."""
        started = time.monotonic()
        while self._notice is notice:
            refusal = await _ordered(notice)
            passed_s = time.monotonic() - started
            if refusal is None:
                logger.warning("node %s drains, ordered within %.2f s", self._node, passed_s)
                return
            logger.warning("node %s is not drained yet: %s", self._node, refusal)
            if passed_s >= max(remaining_s, LEAST_DRAIN_S):
                return
            await asyncio.sleep(DRAIN_RETRY_S)

    async def _tell(self) -> None:
        """The agent, again and again: it may start anew, and a lost notice need not be repeated."""
        agent: Any = None
        await self._heard.wait()
        while self._notice:
            try:
                if agent is None:
                    agent = await asyncio.to_thread(serve.get_app_handle, AGENT_APP)
                # The agent reckons by its own clock.
                ends_in_s = max(0.0, self._ends_at - time.monotonic())
                told = {**self._notice.model_dump(), "ends_in_s": ends_in_s}
                await asyncio.wait_for(agent.notice.remote(told), TIMEOUT_S)
            except (RayError, serve.exceptions.RayServeException, TimeoutError):
                agent = None
            await asyncio.sleep(TELL_INTERVAL_S)


_NodeWatcher = ray.remote(num_cpus=0)(NodeWatcher)


async def _ordered(notice: NodeNotice) -> str | None:
    """Why the node does not drain, or None where it does."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(drain, notice), TIMEOUT_S)
    except (RayError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


def drain(notice: NodeNotice) -> str | None:
    """Why Ray refuses, or None where it drains the node now. An earlier end that it has been told stays. Raises
    RpcError."""
    gcs = internal_kv_get_gcs_client()
    deadline_ms = int((notice.ends_at - MARGIN_S) * 1000)
    # Told by a watcher of before. 0 is no deadline: Ray's autoscaler drains idle nodes so.
    if 0 < gcs.get_draining_nodes(timeout=TIMEOUT_S).get(notice.node, 0) <= deadline_ms:
        return None
    accepted, why = gcs.drain_node(notice.node, DRAIN_NODE_REASON_PREEMPTION, notice.message, deadline_ms)
    return None if accepted else why
