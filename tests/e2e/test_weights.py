"""Weights flow before engines start, and corrupt bytes are replaced, never loaded."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusters.launch import ray_head
from clusters.storage import StoreSpec
from serve_app.cli.replication import Replication
from tests.e2e.conftest import Fleet
from tests.e2e.waiting import wait_for
from weights.copying.pace import SILENT
from weights.push import push
from weights.releases.aliases import drop, move
from weights.releases.registry import has_release
from weights.sources.source import open_source
from weights.store import Store, open_store

MODEL = "demo-chat"
SITE = "gcp-europe-west4"
ALIAS = "canary"


@pytest.fixture
def home(fleet: Fleet) -> Store:
    return _store(fleet, fleet.local.fleet.weights.home)


@pytest.fixture(autouse=True)
def _others_untouched(fleet: Fleet) -> None:
    assert SITE in fleet.healthy()


def test_what_an_alias_names_reaches_every_site_and_node(fleet: Fleet, home: Store, tmp_path: Path) -> None:
    release = _push(fleet, home, _fine_tune(fleet, tmp_path, "alias"))
    move(home, MODEL, ALIAS, release, "test", datetime.now(UTC))
    try:
        assert wait_for(lambda: _releases(fleet, release) == dict.fromkeys(fleet.sites, ("stored", 1)), 240)
        for site in fleet.sites:
            assert has_release(_store(fleet, site), MODEL, release)
    finally:
        drop(home, MODEL, ALIAS)


def test_a_placement_waits_for_its_weights_and_starts_when_they_are_there(
    fleet: Fleet, home: Store, tmp_path: Path
) -> None:
    source = _fine_tune(fleet, tmp_path, "waiting")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    release = _push(fleet, open_store(StoreSpec(url=scratch.as_uri())), source)
    with _extra(fleet, {"model": {"release": release}, "placement": {"gpus": 0.1}}):
        assert wait_for(lambda: "extra" in _status(fleet), 60)
        time.sleep(15)
        assert _status(fleet)["extra"]["status"] == "DEPLOYING"
        assert not _status(fleet)["extra"]["deployments"], "no replica books a GPU before"
        _push(fleet, home, source)
        assert wait_for(lambda: _status(fleet)["extra"]["status"] == "RUNNING", 420), _status(fleet)["extra"]


def test_corrupt_bytes_are_put_aside_and_replaced_before_an_engine_starts(fleet: Fleet, tmp_path: Path) -> None:
    store = _store(fleet, SITE)
    release = fleet.local.fleet.model(MODEL).release
    key = f"models/{MODEL}/{release}/model.safetensors"
    stored = store.find(key)
    assert stored
    healthy = b"".join(store.read(key, 0, stored.size))
    corrupt = bytearray(healthy)
    corrupt[stored.size // 2] ^= 1
    store.write(key, bytes(corrupt))
    with _extra(fleet, {"weights": {"cache_dir": str(tmp_path)}, "placement": {"gpus": 0.1}}):
        assert wait_for(lambda: _status(fleet).get("extra", {}).get("status") == "RUNNING", 420), _status(fleet)
    assert b"".join(store.read(key, 0, stored.size)) == healthy
    (aside,) = [item for item in store.objects("quarantine/") if item.key.endswith("/model.safetensors")]
    assert b"".join(store.read(aside.key, 0, stored.size)) == corrupt
    (loaded,) = tmp_path.rglob("model.safetensors")
    assert loaded.read_bytes() == healthy


def _fine_tune(fleet: Fleet, directory: Path, note: str) -> Path:
    """The files of the model, with one that differs."""
    source = Path(fleet.local.fleet.model(MODEL).source)
    tuned = directory / "tuned"
    tuned.mkdir()
    for path in source.iterdir():
        (tuned / path.name).write_bytes(path.read_bytes())
    (tuned / "NOTE.txt").write_text(note)
    return tuned


def _push(fleet: Fleet, store: Store, source: Path) -> str:
    work = Replication(fleet.local.fleet, _environ(fleet), None)
    with work.terms(SITE, SILENT) as terms:
        pushed = push(MODEL, open_source(str(source), Path()), store, "home", datetime.now(UTC), terms)
    return pushed.manifest.release


def _store(fleet: Fleet, site: str) -> Store:
    return open_store(fleet.local.fleet.site(site).store, _environ(fleet))


def _environ(fleet: Fleet) -> Mapping[str, str]:
    return fleet.local.heads[SITE].environ


def _releases(fleet: Fleet, release: str) -> dict[str, tuple[str, int]]:
    """Phase of a release, and nodes that have it on their disks, by site."""
    return {
        site["site"]: (state["phase"], state["nodes"])
        for site in fleet.http.get("/fleet/sites").json()
        for state in site["releases"]
        if state["release"] == release
    }


@contextmanager
def _extra(fleet: Fleet, changes: dict[str, Any]) -> Iterator[None]:
    """One more copy of the model's application at the site, changed so, beside what runs. The replicator is told."""
    head = fleet.local.heads[SITE]
    config = yaml.safe_load(fleet.local.config(SITE).read_text())
    text = yaml.safe_dump(config)
    chat = next(app for app in config["applications"] if app["name"] == MODEL)
    extra = yaml.safe_load(yaml.safe_dump(chat)) | {"name": "extra", "route_prefix": "/extra"}
    for field, value in changes.items():
        extra["args"][field] = {**extra["args"][field], **value}
    changed = yaml.safe_load(text)
    replicator = next(app for app in changed["applications"] if app["name"] == "fleet-replicator")
    wanted = {"model": MODEL, "release": extra["args"]["model"]["release"], "sites": [SITE]}
    if wanted["release"] not in {want["release"] for want in replicator["args"]["wants"]}:
        replicator["args"]["wants"].append(wanted)
    changed["applications"].append(extra)
    path = fleet.local.run.directory / SITE / "changed.yaml"
    path.write_text(yaml.safe_dump(changed))
    ray_head.deploy(fleet.local.run, head, path)
    try:
        yield
        assert {_status(fleet)[app["name"]]["status"] for app in config["applications"]} == {"RUNNING"}
    finally:
        ray_head.deploy(fleet.local.run, head, fleet.local.config(SITE))
        assert wait_for(lambda: "extra" not in _status(fleet), 120)


def _status(fleet: Fleet) -> dict[str, Any]:
    return ray_head.applications(fleet.local.heads[SITE])
