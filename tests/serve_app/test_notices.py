"""A notice at a node's metadata server, on a real Ray cluster: the node drains, and nobody's request fails."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import ray
from ray import serve
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.exceptions import RayError
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from clusters.notices.notice import NoticeSource
from clusters.render import AGENT_APP
from clusters.state import NodeNotice, SiteState
from serve_app import site
from serve_app.notices import MARGIN_S, METADATA_URL, Watchers, drain, watched
from tests.fakes.metadata import FakeAws

NOTICE_S = 90
TIMEOUT_S = 60
MEMORY = 80 * 2**20
STREAM_S = 8
"""Less than the 20 s that Serve leaves to what runs in a replica that it ends."""

pytestmark = pytest.mark.timeout(300)


@dataclass
class SpotCluster:
    """A head, and spot nodes with a metadata server each."""

    cluster: Cluster
    doomed: FakeAws
    safe: FakeAws
    nodes: dict[str, str] = field(default_factory=dict)
    """Ids of the spot nodes."""

    def add(self, name: str, server: FakeAws, pool: str = "spot") -> None:
        added = self.cluster.add_node(
            num_cpus=0,
            resources={f"pool:{pool}": 1},
            object_store_memory=MEMORY,
            env_vars={METADATA_URL: server.url},
        )
        self.nodes[name] = added.node_id


@pytest.fixture(scope="module")
def spot() -> Iterator[SpotCluster]:
    with pytest.MonkeyPatch.context() as patch, FakeAws() as doomed, FakeAws() as safe:
        # Left to itself, Ray makes a token for this user, and tells all processes to come to ask for one.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("SITE_TOKEN", "token")
        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            ray.init(cluster.address, log_to_driver=False)
            serve.start(proxy_location="Disabled")
            yield SpotCluster(cluster, doomed, safe)
            serve.shutdown()
        finally:
            ray.shutdown()
            cluster.shutdown()


async def test_a_node_that_is_taken_back_drains_and_no_request_fails(spot: SpotCluster) -> None:
    spot.add("doomed", spot.doomed)
    placed = _place_replicas()
    spot.add("safe", spot.safe)
    agent = _agent()
    async with _kept(Watchers({"spot": NoticeSource.AWS, "other": NoticeSource.NONE})):
        await _until(lambda: spot.doomed.asked and spot.safe.asked)
        os.kill(_watcher_of(spot.nodes["doomed"]), signal.SIGKILL)
        await _until(lambda: _asked_for_a_token(spot.doomed) > 1)

        async with _load(placed) as seen:
            await _until(lambda: seen.answers)
            stream = asyncio.create_task(_stream(placed))
            taken_at = time.time() + NOTICE_S
            spot.doomed.take_back(NOTICE_S)
            ordered_s = await _until(lambda: spot.nodes["doomed"] in _draining())
            replaced_s = await _until(lambda: _answers_only_from(seen, spot.nodes["safe"]))
            assert await stream == spot.nodes["doomed"], "it ends where it began, since Serve gives it 20 s"

    assert spot.nodes["safe"] not in _draining()
    assert taken_at - 10 < _draining()[spot.nodes["doomed"]] / 1000 <= taken_at - MARGIN_S
    assert seen.failures == []
    (notice,) = SiteState.model_validate(await agent.state.remote()).notices
    assert (notice.node, notice.pool) == (spot.nodes["doomed"], "spot")
    assert taken_at - 10 < notice.ends_at < taken_at + 2
    assert "terminate" in notice.message
    assert replaced_s < NOTICE_S / 2, f"drained after {ordered_s:.1f} s, replaced {replaced_s:.1f} s later"


async def test_a_node_that_hibernates_at_once_is_drained_all_the_same(spot: SpotCluster) -> None:
    with FakeAws() as server:
        spot.add("hibernating", server, pool="short")
        busy = _occupy("short")
        async with _kept(Watchers({"short": NoticeSource.AWS})):
            await _until(lambda: server.asked)
            server.take_back(NOTICE_S, action="hibernate")
            await _until(lambda: spot.nodes["hibernating"] in _draining())
            assert _draining()[spot.nodes["hibernating"]] / 1000 < time.time()
            ray.kill(busy)


def test_ray_keeps_the_earliest_end_of_a_node(spot: SpotCluster) -> None:
    spot.add("told twice", spot.safe, pool="twice")
    busy = _occupy("twice")
    node, now = spot.nodes["told twice"], time.time()
    told = []
    for end in (now + 100, now + 130, now + 50):
        assert drain(NodeNotice(node=node, pool="twice", ends_at=end)) is None
        told.append(round(_draining()[node] / 1000 + MARGIN_S - now))
    assert told == [100, 100, 50]
    ray.kill(busy)


def test_watchers_are_for_living_nodes_of_their_pools() -> None:
    nodes = [
        {"NodeID": "a", "Alive": True, "Resources": {"pool:spot": 1.0, "CPU": 8.0}},
        {"NodeID": "b", "Alive": False, "Resources": {"pool:spot": 1.0}},
        {"NodeID": "c", "Alive": True, "Resources": {"pool:reserved": 1.0}},
        {"NodeID": "d", "Alive": True, "Resources": {}},
    ]
    assert watched(nodes, ["spot", "cheap"]) == {"a": "spot"}


def _place_replicas() -> Any:
    """Two replicas that need a node of the pool, of which there is one."""

    # Local, so that its nodes need not find the tests.
    class Placed:
        async def __call__(self) -> str:
            await asyncio.sleep(0.05)
            return str(ray.get_runtime_context().get_node_id())

        async def stream(self, seconds: int) -> AsyncIterator[str]:
            for _ in range(10 * seconds):
                await asyncio.sleep(0.1)
                yield str(ray.get_runtime_context().get_node_id())

    options = {"num_cpus": 0, "resources": {"pool:spot": 0.001}}
    deployment = serve.deployment(Placed, num_replicas=2, ray_actor_options=options)
    return serve.run(deployment.bind(), name="placed", route_prefix=None)


def _occupy(pool: str) -> Any:
    """An actor on the pool's node: without one, a node that drains ends at once."""

    class Busy:
        def here(self) -> None:
            pass

    busy = ray.remote(num_cpus=0, resources={f"pool:{pool}": 0.001})(Busy).remote()
    ray.get(busy.here.remote(), timeout=TIMEOUT_S)
    return busy


def _agent() -> Any:
    args = {"site": "east", "token_variable": "SITE_TOKEN", "placements": []}
    return serve.run(site.agent(args), name=AGENT_APP, route_prefix=None)


@asynccontextmanager
async def _kept(watchers: Watchers) -> AsyncIterator[None]:
    keeping = asyncio.create_task(watchers.keep())
    try:
        yield
        assert not keeping.done()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@dataclass
class Seen:
    """What a client saw. `latest` is the node of each of the latest answers."""

    answers: int = 0
    latest: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def _load(placed: Any) -> AsyncIterator[Seen]:
    seen = Seen()

    async def ask() -> None:
        while True:
            try:
                node = await placed.remote()
                seen.answers += 1
                seen.latest = [*seen.latest[-49:], node]
            except (RayError, serve.exceptions.RayServeException) as error:
                seen.failures.append(repr(error))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield seen
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _stream(placed: Any) -> str:
    """The one node that all of it came from."""
    nodes = [node async for node in placed.options(stream=True).stream.remote(STREAM_S)]
    assert len(nodes) == 10 * STREAM_S
    (node,) = set(nodes)
    return str(node)


async def _until(condition: Callable[[], object]) -> float:
    """The seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < TIMEOUT_S, "it did not happen in time"
        await asyncio.sleep(0.1)
    return time.monotonic() - started


def _draining() -> dict[str, int]:
    nodes: dict[str, int] = internal_kv_get_gcs_client().get_draining_nodes()
    return nodes


def _answers_only_from(seen: Seen, node: str) -> bool:
    return len(seen.latest) == 50 and set(seen.latest) == {node}


def _watcher_of(node: str) -> int:
    """Its process id."""
    (pid,) = [
        actor["Pid"]
        for actor in actors().values()
        if actor["ActorClassName"] == "NodeWatcher" and actor["Address"]["NodeID"] == node
    ]
    assert isinstance(pid, int)
    return pid


def _asked_for_a_token(server: FakeAws) -> int:
    return sum(asked.method == "PUT" for asked in server.asked)
