"""Releases decide what may start: a site without one refuses, and corrupt bytes are never loaded."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from clusters.launch import ray_head
from tests.e2e.conftest import Fleet
from tests.e2e.waiting import wait_for
from weights.store import open_store

SITE = "onprem-zurich"
ABSENT = "0123456789ab"


def test_a_site_whose_store_lacks_the_release_refuses(fleet: Fleet) -> None:
    message = _failure(fleet, {"model": {"release": ABSENT}}, timeout_s=120)
    assert f"release {ABSENT} of demo-chat is not in the store" in message
    assert f"rayfleet weights replicate demo-chat --site {SITE}" in message


def test_a_corrupt_object_is_not_loaded_and_is_named(fleet: Fleet, tmp_path: Path) -> None:
    site = fleet.local.fleet.site(SITE)
    store = open_store(site.store, fleet.local.stores[SITE].environ)
    release = fleet.local.fleet.model("demo-chat").release
    key = f"models/demo-chat/{release}/model.safetensors"
    size = store.size(key)
    assert size
    healthy = b"".join(store.read(key, at, 2**20) for at in range(0, size, 2**20))
    corrupt = bytearray(healthy)
    corrupt[size // 2] ^= 1
    try:
        store.write(key, bytes(corrupt))
        empty_cache = {"cache_dir": str(tmp_path)}
        message = _failure(fleet, empty_cache | {"placement": {"gpus": 0.1}}, timeout_s=240)
    finally:
        store.write(key, healthy)
    assert "model.safetensors" in message
    assert "corrupt" in message
    assert not [path for path in tmp_path.rglob("*") if path.name == "model.safetensors"]


def _failure(fleet: Fleet, changes: dict[str, Any], timeout_s: float) -> str:
    """Deploy one more copy of demo-chat, changed so, beside what runs; return the message with which it fails."""
    head = fleet.local.heads[SITE]
    config = yaml.safe_load(fleet.local.config(SITE).read_text())
    chat = next(app for app in config["applications"] if app["name"] == "demo-chat")
    extra = yaml.safe_load(yaml.safe_dump(chat)) | {"name": "refused", "route_prefix": "/refused"}
    for field, value in changes.items():
        extra["args"][field] = {**extra["args"][field], **value} if isinstance(value, dict) else value
    changed = fleet.local.run.directory / SITE / "changed.yaml"
    changed.write_text(yaml.safe_dump(config | {"applications": [*config["applications"], extra]}))

    ray_head.deploy(fleet.local.run, head, changed)
    try:
        failed = wait_for(lambda: _status(fleet)["refused"]["status"] == "DEPLOY_FAILED", timeout_s)
        applications = _status(fleet)
        assert failed, applications["refused"]
        assert {applications[app["name"]]["status"] for app in config["applications"]} == {"RUNNING"}
        return str(applications["refused"])
    finally:
        ray_head.deploy(fleet.local.run, head, fleet.local.config(SITE))
        assert wait_for(lambda: "refused" not in _status(fleet), 60)


def _status(fleet: Fleet) -> dict[str, Any]:
    return ray_head.applications(fleet.local.heads[SITE])


@pytest.fixture(autouse=True)
def _others_untouched(fleet: Fleet) -> None:
    assert SITE in fleet.healthy()
