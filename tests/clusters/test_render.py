"""The Serve configs, held to Ray's own schema."""

from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

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


RESTARTING = {
    "a release": ("models", 0, {"release": "0" * 12}),
    "the context": ("models", 0, {"max_model_len": 512}),
    "tasks": ("models", 0, {"tasks": ["chat"]}),
    "gpus": ("placements", 2, {"gpus": 0.25}),
    "cpus": ("placements", 2, {"cpus": 3}),
    "batching": ("placements", 2, {"batching": {"max_num_seqs": 5}}),
    "prefix caching": ("placements", 2, {"prefix_caching": False}),
    "speculation": ("placements", 2, {"speculation": {"tokens": 3}}),
    "loading": ("placements", 2, {"loading": "streamed"}),
    "engine arguments": ("placements", 2, {"engine": {"seed": 1}}),
    "whether GPUs are watched": ("placements", 2, {"autoscaling": {"policy": "utilisation"}}),
    "the store": ("sites", 2, {"store": {"url": "s3://elsewhere"}}),
    "the token": ("sites", 2, {"token_env": "OTHER"}),
    "the disk": ("weights", None, {"cache_dir": "/elsewhere"}),
}
PATIENT = {
    "another release": ("models", 1, {"release": "0" * 12}),
    "a source": ("models", 0, {"source": "elsewhere"}),
    "a routing policy": ("models", 0, {"policy": "batch"}),
    "residency": ("models", 0, {"jurisdictions": ["us"]}),
    "what the load is divided by": ("placements", 2, {"autoscaling": {"target_queue_depth": 3}}),
    "bounds": ("placements", 2, {"autoscaling": {"min_replicas": 0, "max_replicas": 3}}),
    "patience": ("placements", 2, {"autoscaling": {"scale_down_delay_s": 7, "signal_max_age_s": 20}}),
    "a neighbour": ("placements", 3, {"gpus": 0.2}),
    "the jurisdiction": ("sites", 2, {"jurisdiction": "eu"}),
    "egress": ("sites", 2, {"egress_usd_per_gb": 0.5}),
    "another site": ("sites", 0, {"store": {"url": "s3://elsewhere"}}),
    "the replicator": ("weights", None, {"interval_s": 5, "bandwidth_mbps": 9, "budget_usd": 1, "verify": "off"}),
    "the home": ("weights", None, {"home": "gcp-europe-west4"}),
    "routing": ("routing", None, {"policy": "batch"}),
    "keys": ("keys", None, [{"name": "k", "sha256": "0" * 64}]),
}


@pytest.mark.parametrize(("part", "index", "fields"), RESTARTING.values(), ids=RESTARTING.keys())
def test_what_an_engine_goes_by_replaces_it(part: str, index: int | None, fields: Any) -> None:
    assert _engine_version(_edited(part, index, fields)) != _engine_version(_declared())


@pytest.mark.parametrize(("part", "index", "fields"), PATIENT.values(), ids=PATIENT.keys())
def test_no_other_edit_replaces_engines(part: str, index: int | None, fields: Any) -> None:
    assert _edited(part, index, fields) != _declared()
    assert _engine_version(_edited(part, index, fields)) == _engine_version(_declared())


def test_prices_and_the_number_of_nodes_replace_no_engine() -> None:
    edited = _declared()
    for pool in edited["sites"][2]["pools"]:
        pool |= {"usd_per_hour": 9, "max_nodes": 9}
    assert _engine_version(edited) == _engine_version(_declared())


def _declared() -> dict[str, Any]:
    return load(ROOT / "fleet.yaml").model_dump(mode="json", exclude_unset=True)


def _edited(part: str, index: int | None, fields: Any) -> dict[str, Any]:
    fleet = _declared()
    if isinstance(fields, list):
        return fleet | {part: fields}
    (fleet.setdefault(part, {}) if index is None else fleet[part][index]).update(fields)
    return fleet


def _engine_version(declared: dict[str, Any]) -> str:
    """Of the first model at the site that has both. Where it changes, Ray starts its replicas anew."""
    fleet = FleetSpec.model_validate(declared)
    site = fleet.site("onprem-zurich")
    apps = site_config(fleet, site, "localhost", 8000)["applications"]
    app = next(app for app in apps if app["name"] == fleet.models[0].name)
    version: str = get_app_code_version(ServeApplicationSchema.model_validate(app))
    return version


def test_committed_files_are_fresh(fleet: FleetSpec) -> None:
    for path, text in files(fleet).items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: run `rayfleet render`"
