"""A site's nodes: which are asked for where placements have several pools, and who hears of the end of spot nodes."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import ray
from ray import serve
from ray._private.state import available_resources_per_node
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import RayError, RpcError
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from autoscaling import ray_notes
from autoscaling.mix import Memory, Mix, News, Node, Want, decide
from autoscaling.ray_notes import WORD_LIFETIME_S, Renewed, Word
from clusters.machine_nodes import pool_of
from clusters.mix import SpotSpec
from clusters.packing import alone
from clusters.render import AGENT_APP
from clusters.spec import PlacementSpec, PoolSpec
from clusters.state import NodeNotice, SiteState
from serve_app.notices import Watchers
from serve_app.site_args import NodesAppArgs

logger = logging.getLogger("ray.serve")

MIX_INTERVAL_S = 0.2
"""Short: a replica that Ray's autoscaler sees waiting before we have asked for its node gets one of Ray's choice."""
NOTICES_INTERVAL_S = 1.0
REFUSALS_INTERVAL_S = 1.0
REPEAT_INTERVAL_S = 2.0
"""Between two equal requests: at a redeploy the replica of before takes back what is asked for, when it ends."""
TIMEOUT_S = 5.0


class SiteNodes:
    """One replica per site that has spot pools."""

    def __init__(self, args: NodesAppArgs):
        self._pools = {pool.name: pool for pool in args.pools}
        self._mixed = args.mixed
        self._words = {placement.model: Renewed[Word](WORD_LIFETIME_S) for placement in args.mixed}
        self._replicas: dict[str, int] = {}
        self._notices: tuple[NodeNotice, ...] = ()
        self._refused: Mapping[str, float] = {}
        self._mix = Mix({}, {}, Memory())
        self._asked_at: float | None = None
        """By the monotonic clock. None until the first time."""
        self._ended = False
        self._asking = Lock()
        self._tasks = [asyncio.create_task(Watchers(args.notices).keep())]
        if self._mixed:
            hearing = (self._hear_notices(), self._hear_refusals(), self._keep_mix())
            self._tasks += [asyncio.create_task(each) for each in hearing]

    def check_health(self) -> None:
        ended = [task for task in self._tasks if task.done()]
        if ended:
            raise RuntimeError("the site's nodes are no longer looked after") from ended[0].exception()

    def __del__(self) -> None:
        """Serve calls this when the replica is to end. If there is a next one, it asks anew in a moment."""
        with self._asking:
            self._ended = True
            if self._asked_at is not None:
                self._asked_at = None
                request_resources(bundles=[])

    async def _keep_mix(self) -> None:
        """For ever. While Ray does not answer, what was asked for stands."""
        while True:
            try:
                await asyncio.wait_for(asyncio.to_thread(self._ask), TIMEOUT_S)
            except (RayError, TimeoutError) as error:
                logger.warning("the nodes asked for stay as they are: %s: %s", type(error).__name__, error)
            await asyncio.sleep(MIX_INTERVAL_S)

    async def _hear_notices(self) -> None:
        """From the agent, for ever. While it does not answer, the last ones stand."""
        agent: Any = None
        while True:
            try:
                if agent is None:
                    agent = await asyncio.to_thread(serve.get_app_handle, AGENT_APP)
                state: SiteState = await asyncio.wait_for(agent.state.remote(), TIMEOUT_S)
                self._notices = state.notices
            except (RayError, serve.exceptions.RayServeException, TimeoutError):
                agent = None
            await asyncio.sleep(NOTICES_INTERVAL_S)

    async def _hear_refusals(self) -> None:
        """For ever."""
        while True:
            try:
                self._refused = await asyncio.to_thread(refusals, tuple(self._pools.values()))
            except (RayError, RpcError) as error:
                logger.warning("Ray's autoscaler does not tell which nodes it could not get: %s", error)
            await asyncio.sleep(REFUSALS_INTERVAL_S)

    def _ask(self) -> None:
        now = time.time()
        nodes = standing(self._pools.values(), self._mixed, {notice.node for notice in self._notices})
        wants = [self._want(placement, placement.spot, nodes) for placement in self._mixed if placement.spot]
        mix = decide(wants, nodes, News(self._notices, self._refused), self._mix.memory, now)
        changed = mix.nodes != self._mix.nodes
        self._request(mix.nodes, changed)
        if changed:
            for model, reason in mix.reasons.items():
                logger.info("rayfleet asks for nodes of %s: %s", model, reason)
        self._mix = mix

    def _request(self, nodes: Mapping[str, int], changed: bool) -> None:
        """In place of whatever was asked for, by whomever."""
        with self._asking:
            now = time.monotonic()
            due = self._asked_at is None or changed or now - self._asked_at >= REPEAT_INTERVAL_S
            if due and not self._ended:
                request_resources(bundles=[{self._pools[pool].resource: 1} for pool in Counter(nodes).elements()])
                self._asked_at = now

    def _want(self, placement: PlacementSpec, spot: SpotSpec, nodes: list[Node]) -> Want:
        """As many as the autoscaler's latest word says; until the first one, those that it has."""
        # Not as the agent says: it hears a second later, and Ray may then have chosen a node already.
        word = self._words[placement.model].heed(ray_notes.read(placement.model, Word), time.monotonic())
        if word is not None:
            self._replicas[placement.model] = word.target
        pools = tuple(self._pools[name] for name in placement.pools)
        if placement.model in self._replicas:
            count = alone(pools, placement, self._replicas[placement.model]).nodes
        else:
            count = sum(placement.model in node.models for node in nodes)
        return Want(placement.model, count, spot, pools)


def refusals(pools: Sequence[PoolSpec]) -> dict[str, float]:
    """When Ray's autoscaler last failed to get a node, by pool, in seconds since the epoch. Raises RayError and
    RpcError."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address, TIMEOUT_S)
    latest: dict[str, float] = {}
    for launch in status.failed_launches:
        pool = pool_of(launch.ray_node_type_name, pools)
        if pool is not None and launch.failed_ts_s:
            latest[pool.name] = max(latest.get(pool.name, 0.0), float(launch.failed_ts_s))
    return latest


def standing(pools: Iterable[PoolSpec], mixed: Iterable[PlacementSpec], noticed: set[str]) -> list[Node]:
    """The living nodes of these pools. Raises RayError."""
    of = {pool.resource: pool.name for pool in pools}
    pins = {placement.resource: placement.model for placement in mixed}
    available = available_resources_per_node()
    leaving = noticed | set(internal_kv_get_gcs_client().get_draining_nodes(timeout=TIMEOUT_S))
    return [
        Node(of[own], _users(node["Resources"], available[node["NodeID"]], pins), node["NodeID"] in leaving)
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] in available
        for own in node["Resources"].keys() & of.keys()
    ]


def _users(total: Mapping[str, float], free: Mapping[str, float], pins: Mapping[str, str]) -> frozenset[str]:
    """Whose replicas are there, by what they took of the node's resources; "" for placements of the pool alone."""
    taken = (name for name in total if name.startswith(("pool:", "placement:")) and free.get(name, 0) < total[name])
    return frozenset(pins.get(name, "") for name in taken)
