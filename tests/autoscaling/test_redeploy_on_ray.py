"""A site is deployed again with an edited fleet.yaml: which replicas stay, and how many there are, on real Ray."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray import serve
from ray.serve.schema import ServeDeploySchema

from autoscaling import ray_notes
from autoscaling.ray_notes import Word
from clusters.render import AGENT_APP, engine_deployment, site_config
from clusters.spec import FleetSpec
from tests.autoscaling.orders import Orders, renewed
from tests.serve_app.waiting import wait_for

TIMEOUT_S = 90
ENGINE = "tests.autoscaling.light_engine:build"
SCALING = {"max_replicas": 4, "window_s": 1, "panic_window_s": 0.5, "scale_to_zero_delay_s": 1, "predictive": False}
PLACED = {"site": "east", "pool": "cpu", "gpus": 0}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Orders]:
    with pytest.MonkeyPatch.context() as patch:
        # Left to itself, Ray makes a token for this user, and tells all processes to come to ask for one.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAYFLEET_TOKEN_EAST", "token")
        try:
            ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
            serve.start(proxy_location="Disabled")
            with renewed() as orders:
                yield orders
            serve.shutdown()
        finally:
            ray.shutdown()


def test_a_redeploy_leaves_the_target_and_replaces_only_engines_that_must_be(cluster: Orders) -> None:
    _deploy("chat", {"min_replicas": 1, "target_queue_depth": 8})
    cluster.hold("chat", 17)
    wait_for(lambda: len(_replicas("chat")) == 3, TIMEOUT_S)
    cluster.hold("chat", 1)
    before = _replicas("chat")

    _deploy("chat", {"min_replicas": 1, "max_replicas": 5, "target_queue_depth": 4})
    wait_for(lambda: "1.0 requests at 4 per replica" in _word("chat").reason, TIMEOUT_S)
    wait_for(lambda: len(_replicas("chat")) == 3, TIMEOUT_S)
    assert _replicas("chat") == before
    assert _target("chat") == 3

    _deploy("chat", {"min_replicas": 1, "max_replicas": 5, "target_queue_depth": 4}, engine={"seed": 1})
    wait_for(lambda: not _replicas("chat") & before, TIMEOUT_S)
    wait_for(lambda: len(_replicas("chat")) == 3, TIMEOUT_S)
    assert _target("chat") == 3


def test_a_placement_that_may_sleep_begins_awake_and_sleeps_through_a_redeploy(cluster: Orders) -> None:
    _deploy("sleeper", {"min_replicas": 0})
    wait_for(lambda: _replicas("sleeper"), TIMEOUT_S)
    cluster.hold("sleeper", 0)
    wait_for(lambda: not _replicas("sleeper"), TIMEOUT_S)
    _deploy("sleeper", {"min_replicas": 0}, engine={"seed": 1})
    deployed = time.time()
    wait_for(lambda: _word("sleeper").at > deployed + 2, TIMEOUT_S)
    assert (_word("sleeper").target, _target("sleeper"), _replicas("sleeper")) == (0, 0, frozenset())
    cluster.hold("sleeper", 1)
    wait_for(lambda: _replicas("sleeper"), TIMEOUT_S)


def _deploy(model: str, scaling: dict[str, Any], **placement: Any) -> None:
    """As `serve deploy` does it, of what is rendered; returns when it is built."""
    fleet = _fleet({**PLACED, "model": model, "autoscaling": SCALING | scaling, **placement}, model)
    apps = {app["name"]: app for app in site_config(fleet, fleet.sites[0], "127.0.0.1", 0)["applications"]}
    wanted = [apps[AGENT_APP], apps[model] | {"import_path": ENGINE, "route_prefix": None}]
    serve.context._get_global_client().deploy_apps(ServeDeploySchema.model_validate({"applications": wanted}))


def _fleet(placement: dict[str, Any], model: str) -> FleetSpec:
    site = {
        "name": "east",
        "provider": "onprem",
        "region": "east",
        "jurisdiction": "us",
        "endpoint": "https://east.example.com",
        "store": {"url": "file:///nowhere"},
        "machines": {"head": "head"},
        "pools": [{"name": "cpu", "instance_type": "x", "usd_per_hour": 1}],
    }
    return FleetSpec.model_validate(
        {
            "name": "demo",
            "sites": [site],
            "models": [{"name": model, "source": "x", "release": "0" * 12, "tasks": ["chat"], "max_model_len": 1024}],
            "placements": [placement],
            "weights": {"home": "east"},
            "ingress": {"machines": {"head": "head"}},
        }
    )


def _word(model: str) -> Word:
    return ray_notes.read(model, Word) or Word(0, "", 0)


def _replicas(model: str) -> frozenset[str]:
    """Those that answer."""
    replicas = _deployment(model).get("replicas", ())
    return frozenset(each["replica_id"] for each in replicas if each["state"] == "RUNNING")


def _target(model: str) -> int:
    target: int = _deployment(model)["target_num_replicas"]
    return target


def _deployment(model: str) -> dict[str, Any]:
    details = serve.context._get_global_client().get_serve_details()["applications"]
    found: dict[str, Any] = details.get(model, {"deployments": {}})["deployments"].get(engine_deployment(model), {})
    return found
