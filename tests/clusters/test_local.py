"""The local fleet's plan and its files. Starting one for real is for the end-to-end tests."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from clusters.check import load as load_fleet
from clusters.launch import local as launch
from clusters.launch.local import INGRESS, LocalFleet, NoLocalFleet
from clusters.launch.ports import PortBlock
from clusters.launch.processes import LaunchError, Run, end, is_free, spawn
from clusters.launch.stores import LocalStore
from clusters.spec import FleetSpec
from clusters.storage import StoreSpec

ROOT = Path(__file__).parents[2]
PORT = 8123


@pytest.fixture
def declared() -> FleetSpec:
    return load_fleet(ROOT / "fleet.yaml")


@pytest.fixture
def local(declared: FleetSpec, tmp_path: Path) -> LocalFleet:
    stores = {
        site.name: LocalStore(site.name, StoreSpec(url=f"file:///{site.name}"), {"STORE": site.name})
        for site in declared.sites
    }
    blocks = [PortBlock(20_000 + 400 * number) for number in range(len(declared.sites) + 1)]
    fleet = launch.localise(declared, ROOT, stores, blocks, PORT, "rf-key", ROOT / "requests")
    local = LocalFleet(
        Run.new(tmp_path / "local"),
        fleet,
        launch.plan_heads(fleet, {"STORES": "all"}, blocks, tmp_path / "rays"),
        stores,
        "rf-key",
        tmp_path / "rays",
    )
    local.run.directory.mkdir()
    launch.write(local)
    return local


def test_only_endpoints_stores_and_keys_differ_from_what_is_declared(declared: FleetSpec, local: LocalFleet) -> None:
    assert local.fleet.placements == declared.placements
    assert [model.release for model in local.fleet.models] == [model.release for model in declared.models]
    assert [model.source for model in local.fleet.models] == [str(ROOT / model.source) for model in declared.models]
    assert local.fleet.routing == declared.routing
    for site, here in zip(declared.sites, local.fleet.sites, strict=True):
        changed = {name for name, value in here if value != getattr(site, name)}
        assert changed <= {"endpoint", "store", "token_env", "pools"}
        assert [pool.model_copy(update={"notices": None}) for pool in here.pools] == list(site.pools)
        assert here.token_variable == site.token_variable


def test_one_node_stands_for_the_least_nodes_of_each_pool(local: LocalFleet) -> None:
    head = local.heads["aws-us-east-1"]
    assert (head.gpus, head.resources) == (1, {"pool:l4-reserved": 1})


def test_every_cluster_has_its_own_secrets_and_only_its_own(local: LocalFleet) -> None:
    heads = local.heads.values()
    assert len({head.token for head in heads}) == len(local.heads)
    for site in local.fleet.sites:
        tokens = [name for name in local.heads[site.name].environ if name.startswith("RAYFLEET_TOKEN_")]
        assert tokens == [site.token_variable]
    assert {site.token_variable for site in local.fleet.sites} <= local.heads[INGRESS].environ.keys()


def test_it_is_read_back_as_it_was_written(local: LocalFleet) -> None:
    read = launch.load(local.run.directory)
    assert TypeAdapter(LocalFleet).dump_python(read) == TypeAdapter(LocalFleet).dump_python(local)


def test_what_holds_secrets_is_private_and_configs_hold_none(local: LocalFleet) -> None:
    for path in [local.run.directory / "run.json", local.run.directory / "env", *local.run.directory.glob("*/env")]:
        assert path.stat().st_mode & 0o077 == 0, path
    secrets = [local.api_key, *(head.token for head in local.heads.values())]
    secrets += [value for head in local.heads.values() for name, value in head.environ.items() if "TOKEN" in name]
    for config in local.run.directory.glob("*/config.yaml"):
        assert not any(secret in config.read_text() for secret in secrets)


def test_each_site_has_a_node_cache_of_its_own(local: LocalFleet) -> None:
    caches = {
        app["args"]["weights"]["cache_dir"]
        for site in local.fleet.sites
        for app in yaml.safe_load(local.config(site.name).read_text())["applications"]
        if "weights" in app["args"]
    }
    assert len(caches) == len(local.fleet.sites)


def test_the_env_file_is_what_a_shell_sources(local: LocalFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # which another shell need not have
    launch.write(local)
    env = local.config("aws-us-east-1").parent / "env"
    done = subprocess.run(
        ["bash", "-c", f'. "{env}"; echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN $RAY_DASHBOARD_ADDRESS"'],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    head = local.heads["aws-us-east-1"]
    assert done.stdout.split() == ["token", head.token, head.dashboard]


def test_a_second_fleet_in_the_same_directory_is_refused_while_the_first_runs(local: LocalFleet) -> None:
    spawn(local.run, "any", [sys.executable, "-c", "import time; time.sleep(60)"], {})
    try:
        with pytest.raises(LaunchError, match="already runs"):
            launch.refuse_second_run(local.run.directory)
    finally:
        end(local.run.id, grace_s=0)
    launch.refuse_second_run(local.run.directory)
    assert not (local.run.directory / "run.json").exists(), "the remains of a fleet that was killed are cleared"


def test_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(NoLocalFleet, match="rayfleet up"):
        launch.load(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"run": 1}))
    with pytest.raises(NoLocalFleet):
        launch.load(tmp_path)


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_free(listener.getsockname()[1])
