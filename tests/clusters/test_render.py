"""The Serve configs, held to Ray's own schema."""

from pathlib import Path

import pytest
from ray.serve.schema import ServeDeploySchema

from clusters.check import load
from clusters.render import AGENT_APP, NODES_APP, REPLICATOR_APP, ingress_config, site_config
from clusters.spec import FleetSpec, Market
from serve_app.cli.render import files
from serve_app.site_args import AgentAppArgs, ModelAppArgs, NodesAppArgs, ReplicatorAppArgs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fleet() -> FleetSpec:
    return load(ROOT / "fleet.yaml")


def test_ray_accepts_every_config(fleet: FleetSpec) -> None:
    for site in fleet.sites:
        ServeDeploySchema.model_validate(site_config(fleet, site, "0.0.0.0", 8000))
    ServeDeploySchema.model_validate(ingress_config(fleet, "0.0.0.0"))


def test_builders_accept_their_arguments(fleet: FleetSpec) -> None:
    for site in fleet.sites:
        apps = {app["name"]: app["args"] for app in site_config(fleet, site, "127.0.0.1", 8000)["applications"]}
        assert AgentAppArgs.model_validate(apps.pop(AGENT_APP)).site == site.name
        assert ReplicatorAppArgs.model_validate(apps.pop(REPLICATOR_APP)).site == site.name
        if any(pool.market is Market.SPOT for pool in site.pools):
            assert NodesAppArgs.model_validate(apps.pop(NODES_APP)).pools == site.pools
        assert [ModelAppArgs.model_validate(args).model.name for args in apps.values()] == [
            placement.model for placement in fleet.placements_at(site.name)
        ]


def test_the_ingress_gets_the_whole_fleet_back(fleet: FleetSpec) -> None:
    args = ingress_config(fleet, "127.0.0.1")["applications"][0]["args"]
    assert FleetSpec.model_validate(args["fleet"]) == fleet


def test_device_follows_the_pool_unless_told(fleet: FleetSpec) -> None:
    site = fleet.sites[0]
    assert site_config(fleet, site, "h", 1)["applications"][2]["args"]["device"] == "gpu"
    assert site_config(fleet, site, "h", 1, "cpu")["applications"][2]["args"]["device"] == "cpu"


def test_committed_files_are_fresh(fleet: FleetSpec) -> None:
    for path, text in files(fleet).items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: run `rayfleet render`"
