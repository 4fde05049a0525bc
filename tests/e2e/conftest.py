"""One real fleet for all end-to-end tests: three Ray clusters with vLLM on CPU, three object stores, the ingress."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from openai import OpenAI

from clusters.launch import local as launch
from clusters.launch.local import LocalFleet
from clusters.launch.processes import find, free_port
from serve_app.cli.local import bring_up
from serve_app.cli.status import read_sites
from serve_app.cli.steps import console

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900
"""The first test waits for the whole fleet."""


@dataclass(frozen=True)
class Fleet:
    """The running fleet, and the clients that the tests use."""

    local: LocalFleet
    openai: OpenAI
    http: httpx.Client

    @property
    def sites(self) -> list[str]:
        return [site.name for site in self.local.fleet.sites]

    def client(self, key: str) -> OpenAI:
        return OpenAI(base_url=f"{self.local.endpoint}/v1", api_key=key, max_retries=0, timeout=60)

    def healthy(self) -> set[str]:
        sites = read_sites(self.local.endpoint, self.local.api_key)
        return {site["site"] for site in sites if site["healthy"]}


def pytest_configure() -> None:
    """SIGTERM ends the tests as Ctrl-C does: with the fleet's tear-down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Last of all: the fleet stays until the end, and would slow all tests that come after it."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in ours:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(TIMEOUT_S))
    items.sort(key=set(ours).__contains__)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    """A fleet of the tests' own, or the running one whose directory RAYFLEET_TEST_DIR names: that saves minutes."""
    if running := os.environ.get("RAYFLEET_TEST_DIR"):
        yield launch.load(Path(running))
        return
    directory = tmp_path_factory.mktemp("fleet")
    started = bring_up(_fleet_file(directory), directory / "run", free_port(), console())
    try:
        yield started
    finally:
        launch.tear_down(started, keep_logs=True)
    assert not find(started.run.id), "processes of the run are left"
    assert not started.temp_dir.exists()


def _fleet_file(directory: Path) -> Path:
    """The demo's, of one replica per placement: what more there was would have no core to run on."""
    declared = yaml.safe_load((ROOT / "fleet.yaml").read_text())
    for model in declared["models"]:
        model["source"] = str(ROOT / model["source"])
    for placement in declared["placements"]:
        placement["autoscaling"] = {**placement.get("autoscaling", {}), "max_replicas": 1}
    # Minutes less for each test in which a site falls silent.
    declared["routing"]["first_byte_timeout_s"] = 45
    file = directory / "fleet.yaml"
    file.write_text(yaml.safe_dump(declared, sort_keys=False))
    return file


@pytest.fixture(scope="session")
def fleet(local: LocalFleet) -> Iterator[Fleet]:
    client = OpenAI(base_url=f"{local.endpoint}/v1", api_key=local.api_key, max_retries=0, timeout=120)
    headers = {"Authorization": f"Bearer {local.api_key}"}
    with client, httpx.Client(base_url=local.endpoint, headers=headers, timeout=120) as http:
        yield Fleet(local, client, http)
