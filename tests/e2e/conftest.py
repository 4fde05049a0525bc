"""One real fleet for all end-to-end tests: three Ray clusters with vLLM on CPU, three object stores, the ingress."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from rich.console import Console

from clusters.launch import local as launch
from clusters.launch.local import LocalFleet
from clusters.launch.processes import find
from serve_app.cli.local import bring_up
from serve_app.cli.status import read_sites

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    local = bring_up(ROOT / "fleet.yaml", tmp_path_factory.mktemp("fleet"), 0, Console(width=200))
    client = OpenAI(base_url=f"{local.endpoint}/v1", api_key=local.api_key, max_retries=0, timeout=120)
    headers = {"Authorization": f"Bearer {local.api_key}"}
    try:
        with client, httpx.Client(base_url=local.endpoint, headers=headers, timeout=120) as http:
            yield Fleet(local, client, http)
    finally:
        launch.tear_down(local, keep_logs=True)
    assert not find(local.run.id), "processes of the run are left"
    assert not local.temp_dir.exists()
