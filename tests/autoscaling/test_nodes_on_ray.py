"""Nodes come and go with replicas, from the pools that they should come from: on Ray, its autoscaler and Serve."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve

from autoscaling import ray_notes
from autoscaling.ray_config import autoscaling_config
from autoscaling.ray_notes import Word
from autoscaling.ray_signals import RUNNING_METRIC
from clusters.machines import ray_cluster
from clusters.render import AGENT_APP, NODES_APP, site_config
from clusters.spec import FleetSpec, PlacementSpec
from clusters.state import NodeNotice
from serve_app.notices import drain
from serve_app.site import agent, nodes
from tests.autoscaling.fake_cloud import autoscaling_cluster, pools, until
from tests.autoscaling.fake_provider import SOLD_OUT
from tests.autoscaling.orders import Orders, renewed

logger = logging.getLogger(__name__)

SCALING = {
    "min_replicas": 0,
    "max_replicas": 3,
    "target_queue_depth": 1,
    "window_s": 1,
    "panic_window_s": 0.5,
    "scale_down_delay_s": 1,
    "scale_to_zero_delay_s": 1,
    "predictive": False,
}
CARD = {"instance_type": "g6.2xlarge", "accelerator": "L4", "gpus": 1, "cpus": 1, "max_nodes": 3}
SPOT = {**CARD, "market": "spot", "usd_per_hour": 0.4, "notices": "none"}
FLEET = FleetSpec.model_validate(
    {
        "name": "demo",
        "sites": [
            {
                "name": "east",
                "provider": "aws",
                "region": "us-east-1",
                "jurisdiction": "us",
                "endpoint": "https://east.example.com",
                "store": {"url": "s3://east/weights"},
                "machines": {"head": "m7i.xlarge"},
                "pools": [
                    {**CARD, "name": "plain", "usd_per_hour": 0.9},
                    {**CARD, "name": "l4", "usd_per_hour": 0.9},
                    {**SPOT, "name": "l4-spot-a", "subnet": "subnet-0a"},
                    {**SPOT, "name": "l4-spot-b", "subnet": "subnet-0b"},
                ],
            }
        ],
        "models": [
            {"name": name, "source": "x", "release": "0" * 12, "tasks": ["chat"], "max_model_len": 1024}
            for name in ("lone", "mixed")
        ],
        "placements": [
            {"model": "lone", "site": "east", "pool": "plain", "autoscaling": SCALING},
            {
                "model": "mixed",
                "site": "east",
                "pool": "l4",
                "spot": {"pools": ["l4-spot-a", "l4-spot-b"], "min_on_demand_share": 0.33},
                "autoscaling": SCALING,
            },
        ],
        "weights": {"home": "east"},
        "ingress": {"machines": {"head": "c7i.xlarge"}},
    }
)
SITE = FLEET.sites[0]


SPREAD = {"l4": 1, "l4-spot-a": 1, "l4-spot-b": 1}
ELSEWHERE = {"l4": 1, "l4-spot-b": 2}, {"l4": 2, "l4-spot-b": 1}
"""As asked for, and where Ray's autoscaler was first: what it chooses by itself is of the own pool."""
TRIES = 4
"""For the same reason. It looks every second here, so it is first now and then."""


class Engine:
    """Idle; what there is to do is held in front of it."""

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {RUNNING_METRIC: 0.0}


@pytest.fixture(scope="module")
def sold_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names pools of which the cloud has no nodes."""
    file = tmp_path_factory.mktemp("cloud") / "sold-out"
    file.write_text("")
    return file


@pytest.fixture(scope="module")
def cluster(sold_out: Path) -> Iterator[Orders]:
    applications = {app["name"]: app for app in site_config(FLEET, SITE, "127.0.0.1", 0)["applications"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with autoscaling_cluster(ray_cluster(FLEET, SITE), {SITE.token_variable: "token", SOLD_OUT: str(sold_out)}):
            serve.start(proxy_location="Disabled")
            serve.run(agent(applications[AGENT_APP]["args"]), name=AGENT_APP, route_prefix=None)
            serve.run(nodes(applications[NODES_APP]["args"]), name=NODES_APP, route_prefix=None)
            with renewed() as orders:
                yield orders
            serve.shutdown()


def _place(placement: PlacementSpec) -> None:
    deployment = serve.deployment(
        Engine,
        name="EngineServer",
        ray_actor_options={"num_cpus": 0},
        placement_group_bundles=[{"CPU": 1, "GPU": placement.gpus, placement.resource: 0.001}],
        autoscaling_config=autoscaling_config(placement.autoscaling),
        graceful_shutdown_timeout_s=1,
    )
    # It has been awake before.
    ray_notes.write(placement.model, Word(0, "no request", time.time()))
    serve.run(deployment.bind(), name=placement.model, route_prefix=None)


def _homes(model: str) -> Counter[str]:
    """Replicas that answer, by the pool of their node."""
    of = {node["NodeID"]: _pool(node) for node in ray.nodes()}
    application = _details().get(model, {"deployments": {}})
    replicas = [each for deployment in application["deployments"].values() for each in deployment["replicas"]]
    return Counter(of[each["node_id"]] for each in replicas if each["state"] == "RUNNING")


def _details() -> dict[str, Any]:
    details: dict[str, Any] = serve.context._get_global_client().get_serve_details()["applications"]
    return details


def _pool(node: dict[str, Any]) -> str:
    return next((name.removeprefix("pool:") for name in node["Resources"] if name.startswith("pool:")), "head")


@pytest.mark.timeout(180)
def test_a_node_of_the_pool_comes_with_a_replica_and_goes_after_it(cluster: Orders) -> None:
    _place(FLEET.placements[0])
    assert not pools()
    cluster.hold("lone", 1)
    logger.info("node after %.1f s", until(lambda: pools() == {"plain": 1}, "one node of the pool"))
    logger.info("replica %.1f s later", until(lambda: _homes("lone") == {"plain": 1}, "a replica there"))
    cluster.hold("lone", 0)
    logger.info("no replica %.1f s later", until(lambda: not _homes("lone"), "without replicas"))
    logger.info("no node %.1f s later", until(lambda: not pools(), "without nodes"))


@pytest.mark.timeout(180)
def test_nodes_are_on_demand_as_far_as_they_must_and_otherwise_spot_of_every_zone(cluster: Orders) -> None:
    _place(FLEET.placements[1])
    for _ in range(TRIES):
        cluster.hold("mixed", 3)
        logger.info("3 replicas after %.1f s", until(lambda: _homes("mixed").total() == 3, "3 replicas"))
        if _homes("mixed") == SPREAD:
            break
        cluster.hold("mixed", 0)
        until(lambda: not pools(), "without nodes")
    assert _homes("mixed") == SPREAD

    lost = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and _pool(node) == "l4-spot-a")
    notice = NodeNotice(node=lost, pool="l4-spot-a", ends_at=time.time() + 20)
    serve.get_app_handle(AGENT_APP).notice.remote(notice.model_dump()).result()
    assert drain(notice) is None
    logger.info("replaced %.1f s after the notice", until(lambda: _homes("mixed") in ELSEWHERE, "3 replicas elsewhere"))
    logger.info("only 3 nodes %.1f s later", until(lambda: pools().total() == 3, "3 nodes"))

    cluster.hold("mixed", 0)
    logger.info("no node %.1f s after the last request", until(lambda: not pools(), "without nodes"))


@pytest.mark.timeout(180)
def test_what_a_pool_has_none_of_is_asked_for_elsewhere_at_once(cluster: Orders, sold_out: Path) -> None:
    """Not after `launch_s`, which is 7 minutes."""
    _place(FLEET.placements[1])
    sold_out.write_text("l4-spot-b")
    cluster.hold("mixed", 3)
    logger.info("3 replicas after %.1f s", until(lambda: _homes("mixed").total() == 3, "3 replicas"))
    assert "l4-spot-b" not in _homes("mixed")
    cluster.hold("mixed", 0)
    until(lambda: not pools(), "without nodes")
