"""The files for `ray up`: held to Ray's own validation, and their commands to a real shell."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from clusters.check import load
from clusters.machines import directory, ingress_cluster, ray_cluster, render
from clusters.spec import FleetSpec, Market, Provider, SiteSpec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fleet() -> FleetSpec:
    return load(ROOT / "fleet.yaml")


def _site(fleet: FleetSpec, provider: Provider) -> SiteSpec:
    return next(site for site in fleet.sites if site.provider == provider)


def _on_spot(site: SiteSpec) -> SiteSpec:
    pools = tuple(pool.model_copy(update={"market": Market.SPOT}) for pool in site.pools)
    return site.model_copy(update={"pools": pools})


def test_ray_accepts_every_file(fleet: FleetSpec) -> None:
    for path, text in render(fleet).items():
        prepared = prepare_config(yaml.safe_load(text))
        validate_config(prepared)
        assert prepared["head_node_type"] in prepared["available_node_types"], path


@pytest.mark.parametrize("provider", Provider)
def test_ray_accepts_spot_pools_and_ingresses_everywhere(fleet: FleetSpec, provider: Provider) -> None:
    site = _site(fleet, provider)
    validate_config(prepare_config(ray_cluster(fleet, _on_spot(site))))
    ingress = fleet.ingress.model_copy(update={"provider": provider, "machines": site.machines})
    validate_config(prepare_config(ingress_cluster(fleet.model_copy(update={"ingress": ingress}))))


def test_committed_files_are_fresh(fleet: FleetSpec) -> None:
    for path, text in render(fleet).items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: run `rayfleet render`"


@pytest.mark.parametrize("provider", [Provider.AWS, Provider.GCP])
def test_each_pool_is_a_node_type(fleet: FleetSpec, provider: Provider) -> None:
    site = _site(fleet, provider)
    cluster = ray_cluster(fleet, site)
    head = cluster["available_node_types"].pop(cluster["head_node_type"])
    assert head["max_workers"] == 0
    assert "GPU" not in head["resources"]
    for pool, node in zip(site.pools, cluster["available_node_types"].values(), strict=True):
        assert node["resources"] == {"CPU": pool.cpus, "GPU": pool.gpus, f"pool:{pool.name}": 1}
        assert (node["min_workers"], node["max_workers"]) == (pool.min_nodes, pool.max_nodes)
        assert pool.instance_type in node["node_config"].values()
        assert str(site.machines.identity) in str(node["node_config"])
    assert cluster["max_workers"] == sum(pool.max_nodes for pool in site.pools)


def test_spot_is_asked_for_where_the_market_says_so(fleet: FleetSpec) -> None:
    aws = ray_cluster(fleet, _site(fleet, Provider.AWS))["available_node_types"]
    markets = {name: node["node_config"].get("InstanceMarketOptions") for name, node in aws.items()}
    assert markets == {"_head": None, "l4-reserved": None, "l4-spot": {"MarketType": "spot"}}
    gcp = ray_cluster(fleet, _on_spot(_site(fleet, Provider.GCP)))["available_node_types"]
    assert gcp["l4"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["_head"]["node_config"]


def test_on_premises_hosts_are_listed_and_carry_the_pools_resource(fleet: FleetSpec) -> None:
    site = _site(fleet, Provider.ONPREM)
    cluster = ray_cluster(fleet, site)
    hosts = list(site.machines.hosts)
    assert cluster["provider"] == {"type": "local", "head_ip": site.machines.head, "worker_ips": hosts}
    assert f"--resources='{{\"pool:{site.pools[0].name}\": 1}}'" in cluster["worker_start_ray_commands"][-1]


def test_directories_are_named_by_provider_until_there_are_two(fleet: FleetSpec) -> None:
    aws = _site(fleet, Provider.AWS)
    assert directory(fleet, aws) == "clusters/aws"
    second = aws.model_copy(update={"name": "aws-us-west-2"})
    both = fleet.model_copy(update={"sites": (*fleet.sites, second)})
    assert {directory(both, site) for site in (aws, second)} == {"clusters/aws-us-east-1", "clusters/aws-us-west-2"}


FAKE_COMMANDS = {
    "ray": 'echo "ray $@"; env',
    "sudo": '[ "$1" = cat ] && printf "RAY_AUTH_TOKEN=secret\\nRAYFLEET_TOKEN_EAST=other\\n" || cat > "$KEPT"',
    "aws": 'echo "aws $@"; exit ${AWS_EXIT:-0}',
}


def _shell(command: str, tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    for name, body in FAKE_COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command], env={"PATH": path, **environ}, capture_output=True, text=True, timeout=30, check=False
    )


def test_ray_starts_with_the_sites_secrets_and_settings(fleet: FleetSpec, tmp_path: Path) -> None:
    commands = ray_cluster(fleet, _site(fleet, Provider.ONPREM))["worker_start_ray_commands"]
    started = _shell(commands[-1], tmp_path, RAY_HEAD_IP="10.0.0.1")
    assert started.returncode == 0, started.stderr
    command, *environment = started.stdout.splitlines()
    assert command == 'ray start --address=10.0.0.1:6379 --resources={"pool:l40s": 1} --disable-usage-stats'
    assert {
        "RAY_AUTH_TOKEN=secret",
        "RAYFLEET_TOKEN_EAST=other",
        "RAY_AUTH_MODE=token",
        "RAY_SERVE_ENABLE_HA_PROXY=1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1",
        "HF_HUB_OFFLINE=1",
    } <= set(environment)


def _fetches_secrets(cluster: dict[str, Any]) -> str:
    return next(str(command) for command in cluster["setup_commands"] if "secretsmanager" in command)


def test_secrets_are_fetched_into_the_file_and_a_failure_stops_the_set_up(fleet: FleetSpec, tmp_path: Path) -> None:
    command = _fetches_secrets(ray_cluster(fleet, _site(fleet, Provider.AWS)))
    kept = tmp_path / "kept"
    assert _shell(command, tmp_path, KEPT=str(kept)).returncode == 0
    assert "--region us-east-1 --secret-id rayfleet-demo-aws-us-east-1" in kept.read_text()
    assert _shell(command, tmp_path, KEPT=str(kept), AWS_EXIT="255").returncode == 255


def test_what_the_fleet_says_cannot_run_in_the_shell(fleet: FleetSpec, tmp_path: Path) -> None:
    site = _site(fleet, Provider.AWS).model_copy(update={"region": "x; touch $KEPT.owned #"})
    kept = tmp_path / "kept"
    _shell(_fetches_secrets(ray_cluster(fleet, site)), tmp_path, KEPT=str(kept))
    assert "--region x; touch" in kept.read_text()
    assert not kept.with_suffix(".owned").exists()
