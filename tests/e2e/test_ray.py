"""What platform engineers and SREs see: Ray's own commands, dashboards and metrics, by hand as the docs say."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from clusters.launch import ray_head
from clusters.launch.local import INGRESS, deploy, wait_running
from tests.e2e.conftest import Fleet
from tests.e2e.waiting import wait_for

BIN = Path(sys.executable).parent
SITES = ("aws-us-east-1", "gcp-europe-west4", "onprem-zurich")


@pytest.mark.parametrize("site", SITES)
def test_ray_status_shows_the_fraction_of_a_gpu(fleet: Fleet, site: str) -> None:
    fraction = sum(placement.gpus for placement in fleet.local.fleet.placements_at(site))
    assert f"of {fraction:g} reserved in placement groups" in _by_hand(fleet, site, "ray status")


@pytest.mark.parametrize("name", [*SITES, INGRESS])
def test_serve_status_shows_the_applications(fleet: Fleet, name: str) -> None:
    applications = yaml.safe_load(_by_hand(fleet, name, "serve status"))["applications"]
    declared = yaml.safe_load(fleet.local.config(name).read_text())["applications"]
    assert {app: details["status"] for app, details in applications.items()} == {
        app["name"]: "RUNNING" for app in declared
    }


@pytest.mark.parametrize("name", ["onprem-zurich", INGRESS])
def test_serve_deploy_by_hand(fleet: Fleet, name: str) -> None:
    before = ray_head.applications(fleet.local.heads[name])
    _by_hand(fleet, name, f"serve deploy {fleet.local.config(name)}")
    wait_running(fleet.local, name, print)
    after = ray_head.applications(fleet.local.heads[name])
    assert before.keys() == after.keys()


@pytest.mark.parametrize("name", [*SITES, INGRESS])
def test_dashboards_demand_the_clusters_token(fleet: Fleet, name: str) -> None:
    head = fleet.local.heads[name]
    assert httpx.get(f"{head.dashboard}/api/serve/applications/").status_code == 401
    bearer = {"Authorization": f"Bearer {head.token}"}
    assert httpx.get(f"{head.dashboard}/api/serve/applications/", headers=bearer).status_code == 200


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("path", ["/fleet/state", "/models/demo-chat/v1/models", "/models/demo-chat/metrics"])
def test_sites_answer_only_to_their_token(fleet: Fleet, site: str, path: str) -> None:
    endpoint = fleet.local.fleet.site(site).endpoint
    assert httpx.get(f"{endpoint}{path}").status_code == 401
    other = next(name for name in SITES if name != site)
    wrong = fleet.local.heads[other].environ[fleet.local.fleet.site(other).token_variable]
    assert httpx.get(f"{endpoint}{path}", headers={"Authorization": f"Bearer {wrong}"}).status_code == 401


def test_metrics_are_at_the_ingress_and_in_rays_own_endpoint(fleet: Fleet) -> None:
    fleet.openai.completions.create(model="demo-chat", prompt="a", max_tokens=1)
    assert "rayfleet_requests_total{" in fleet.http.get("/metrics").text
    rays = f"http://127.0.0.1:{fleet.local.heads[INGRESS].ports.metrics}/metrics"
    assert wait_for(lambda: "rayfleet_requests" in httpx.get(rays).text, 30)


def test_health_needs_no_key_and_tells_no_secret(fleet: Fleet) -> None:
    response = httpx.get(f"{fleet.local.endpoint}/healthz")
    assert response.status_code == 200
    secrets = [fleet.local.api_key, *(head.token for head in fleet.local.heads.values())]
    assert not any(secret in response.text for secret in secrets)


def test_redeploying_the_ingress_keeps_it_answering(fleet: Fleet) -> None:
    deploy(fleet.local, INGRESS)
    wait_running(fleet.local, INGRESS, print)
    assert wait_for(lambda: fleet.healthy() == set(SITES), 30)


def test_no_secret_reaches_a_log(fleet: Fleet) -> None:
    secrets = [fleet.local.api_key.encode()]
    secrets += [
        value.encode() for head in fleet.local.heads.values() for name, value in head.environ.items() if "TOKEN" in name
    ]
    logs = [
        path for path in fleet.local.temp_dir.rglob("*") if path.suffix in {".log", ".out", ".err"} and path.is_file()
    ]
    logs += list((fleet.local.run.directory / "logs").iterdir())
    assert len(logs) > 50
    for log in logs:
        content = log.read_bytes()
        assert not any(secret in content for secret in secrets), f"{log.name} holds a secret"


def _by_hand(fleet: Fleet, name: str, command: str) -> str:
    """As the quickstart says: source the `env` beside a config, then Ray's own command."""
    env = fleet.local.config(name).parent / "env"
    done = subprocess.run(
        ["bash", "-c", f'. "{env}" && {command}'],
        env={"HOME": os.environ["HOME"], "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
