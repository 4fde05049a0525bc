"""What `rayfleet check` says of placements over several pools."""

from pathlib import Path

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from clusters.check import load, problems
from clusters.machines import ray_cluster
from clusters.packing import plan, usd_per_node_hour
from clusters.render import NODES_APP, REPLICATOR_APP, site_config
from clusters.spec import FleetSpec
from serve_app.site_args import NodesAppArgs
from tests.clusters.mistakes import FLEET

CARD = "instance_type: g6.xlarge, accelerator: L4, gpus: 1, cpus: 8"
PLAIN = "      - {name: plain, instance_type: c7i.xlarge, cpus: 4, usd_per_hour: 0.1}\n"
ZONES = f"""\
      - {{name: a, {CARD}, market: spot, usd_per_hour: 0.2, max_nodes: 2, subnet: subnet-0a}}
      - {{name: b, {CARD}, market: spot, usd_per_hour: 0.3, max_nodes: 2, subnet: subnet-0b}}
"""
MIXED = FLEET.replace(PLAIN, PLAIN + ZONES).replace(
    "    pool: l4\n    gpus: 0.5\n",
    "    pool: l4\n    spot: {pools: [a, b], min_on_demand_share: 0.3}\n    gpus: 0.5\n",
)
CHAT = "placements[0] (chat @ east)"
SPOT = f"{CHAT}.spot"


@pytest.fixture
def fleet(tmp_path: Path) -> FleetSpec:
    path = tmp_path / "fleet.yaml"
    path.write_text(MIXED.replace("max_replicas: 2", "max_replicas: 7"))
    return load(path)


@pytest.mark.parametrize(
    ("old", "new", "field", "message", "fix"),
    [
        ("pools: [a, b]", "pools: [a, c]", f"{SPOT}.pools[1]", 'no pool at east named "c"', "use one of"),
        ("pools: [a, b]", "pools: [a, a]", f"{SPOT}.pools[1]", "is used twice", "name it once"),
        ("pools: [a, b]", "pools: []", f"{SPOT}.pools", "is empty", "at least one"),
        ("pools: [a, b]", "pools: [a, l4]", f"{SPOT}.pools[1]", "l4 is not spot", "market: spot"),
        ("    pool: l4\n", "    pool: a\n", f"{CHAT}.pool", "is spot itself", "on-demand or reserved"),
        ("min_on_demand_share: 0.3", "min_on_demand_share: 1.3", f"{SPOT}.min_on_demand_share", "range", "at most 1"),
        (
            "name: a, instance_type: g6.xlarge, accelerator: L4",
            "name: a, instance_type: g6.xlarge, accelerator: A10G",
            f"{SPOT}.pools[0]",
            "a has accelerator A10G, and l4 has L4",
            "same cards",
        ),
        (
            "name: b, instance_type: g6.xlarge, accelerator: L4, gpus: 1",
            "name: b, instance_type: g6, accelerator: L4, gpus: 4",
            f"{SPOT}.pools[1]",
            "b has gpus 4, and l4 has 1",
            "same cards",
        ),
        (
            "usd_per_hour: 0.3, max",
            "usd_per_hour: 0.7, max",
            f"{SPOT}.pools[1]",
            "b costs more per hour than l4",
            "correct",
        ),
        ("max_replicas: 2", "max_replicas: 13", f"{CHAT}.autoscaling.max_replicas", "need 7 nodes", "raise the pools'"),
        ("share: 0.3", "share: 1", None, "", ""),
        ("min_on_demand_share: 0.3}\n    gpus: 0.5", "min_on_demand_share: 1}\n    gpus: 1", None, "", ""),
        (
            "subnet: subnet-0a",
            "subnet: us-east-1a",
            "sites[0] (east).pools[2] (a).subnet",
            "not well formed",
            "subnet-",
        ),
        (
            "name: a100, ",
            "name: a100, subnet: subnet-0c, ",
            "sites[1] (west).pools[0] (a100).subnet",
            "one zone",
            "aws",
        ),
    ],
)
def test_a_mistake_is_named(old: str, new: str, field: str | None, message: str, fix: str) -> None:
    assert old in MIXED
    found = {problem.field: problem for problem in problems(MIXED.replace(old, new, 1))}
    if field is None:
        assert not found
        return
    assert field in found, found
    assert message in found[field].message
    assert fix in found[field].fix


def test_a_share_that_the_own_pool_cannot_hold_is_a_mistake() -> None:
    text = MIXED.replace("max_replicas: 2", "max_replicas: 12").replace("share: 0.3", "share: 0.5")
    (problem,) = problems(text)
    assert problem.field == f"{SPOT}.min_on_demand_share"
    assert problem.message == "of 6 nodes that is 3, and l4 has at most 2"


def test_the_plan_is_the_mix_and_without_spot_all_is_on_demand(fleet: FleetSpec) -> None:
    site = fleet.site("east")
    plans = {pool.name: plan(fleet, site, pool) for pool in site.pools}
    # Two replicas per node: one node at least, four at most, of which the share of 0.3 is two.
    assert {name: each.nodes for name, each in plans.items()} == {
        "l4": (1, 2),
        "plain": (0, 0),
        "a": (0, 1),
        "b": (0, 1),
    }
    assert sum(len(each.most.seats) for each in plans.values()) == 7
    assert {each.usd_per_hour for each in plans.values()} == {(0.6, 1.2), (0, 0), (0, 0.2), (0, 0.3)}
    alone = plan(fleet, site, site.pool("l4"), spot=False)
    assert (alone.nodes, alone.most.nodes) == ((1, 2), 4)


def test_a_node_costs_what_the_mix_costs(fleet: FleetSpec) -> None:
    chat, west, _ = fleet.placements
    # Of seven replicas four are on demand, two in a and one in b.
    assert usd_per_node_hour(fleet.site("east"), chat) == pytest.approx((4 * 0.6 + 2 * 0.2 + 1 * 0.3) / 7)
    assert usd_per_node_hour(fleet.site("west"), west) == 20


def test_the_mix_is_kept_and_weights_are_cached_on_all_its_nodes(fleet: FleetSpec) -> None:
    rendered = {app["name"]: app["args"] for app in site_config(fleet, fleet.site("east"), "h", 1)["applications"]}
    nodes = NodesAppArgs.model_validate(rendered[NODES_APP])
    assert nodes.mixed == (fleet.placements[0],)
    assert nodes.notices == {"l4": "none", "plain": "none", "a": "aws", "b": "aws"}
    assert rendered[REPLICATOR_APP]["pools"] == {"chat": "placement:chat"}
    elsewhere = site_config(fleet, fleet.site("west"), "h", 1)["applications"]
    assert NODES_APP not in [app["name"] for app in elsewhere]


def test_ray_accepts_what_is_rendered(fleet: FleetSpec) -> None:
    for site in fleet.sites:
        validate_config(prepare_config(ray_cluster(fleet, site)))
        ServeDeploySchema.model_validate(site_config(fleet, site, "h", 1))


def test_node_types_of_all_its_pools_carry_the_placement(fleet: FleetSpec) -> None:
    types = ray_cluster(fleet, fleet.site("east"))["available_node_types"]
    carried = {name: node["resources"].get("placement:chat") for name, node in types.items()}
    assert carried == {"_head": None, "l4": 1, "plain": None, "a": 1, "b": 1}
    assert {name: node.get("priority") for name, node in types.items() if "priority" in node} == {"l4": 1}
    subnets = {name: node["node_config"].get("SubnetIds") for name, node in types.items()}
    assert subnets == {"_head": None, "l4": None, "plain": None, "a": ["subnet-0a"], "b": ["subnet-0b"]}
