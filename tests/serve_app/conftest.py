"""A gateway behind a real server on loopback, in front of fake sites."""

import hashlib
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import openai
import pytest
import uvicorn

from clusters.launch.processes import free_port
from clusters.spec import FleetSpec
from serve_app.gateway import Gateway
from tests.fakes.engine.handle import Engine
from tests.fakes.site import FakeSite
from tests.serve_app.waiting import wait_for

KEY = "sk-test-key"
HTTP_CLIENT = openai.DefaultHttpxClient(verify=False)
"""One for all: to read the system's certificates, which nothing here needs, takes longer than a test."""
IMPATIENT: dict[str, Any] = {"first_byte_timeout_s": 1, "idle_timeout_s": 1, "continuation": {"stall_s": 1}}
UNRESENTFUL: dict[str, Any] = {"health": {"consecutive_errors": 10**6, "success_rate": 0}, "retry_budget": 1}
IN_ORDER: dict[str, Any] = {"policies": {"in_order": {"preset": "primary_standby", "order": ["east", "west", "north"]}}}


def fleet_spec(sites: Sequence[FakeSite | Engine], max_body_bytes: int = 2**20, **routing: Any) -> FleetSpec:
    """A fleet of these sites: `chat` and `embed` everywhere, and `lonely`, which no site reports."""
    models = {"chat": ["chat", "completions"], "embed": ["embeddings"], "lonely": ["chat"]}
    pool = {"name": "pool", "instance_type": "x", "gpus": 1, "usd_per_hour": 1}
    return FleetSpec.model_validate(
        {
            "name": "test",
            "sites": [
                {
                    "name": site.name,
                    "provider": "onprem",
                    "region": "here",
                    "jurisdiction": "ch",
                    "endpoint": site.endpoint,
                    "store": {"url": "file:///nowhere"},
                    "machines": {"head": "x"},
                    "pools": [pool],
                }
                for site in sites
            ],
            "models": [
                {"name": name, "source": "x", "release": "0" * 12, "tasks": tasks, "max_model_len": 4096}
                for name, tasks in models.items()
            ],
            "placements": [
                {"model": model, "site": site.name, "pool": "pool", "gpus": 0.25} for site in sites for model in models
            ],
            "weights": {"home": sites[0].name},
            "ingress": {
                "machines": {"head": "x"},
                "max_body_bytes": max_body_bytes,
                "port": free_port(),
                "drain_s": 0.1,
            },
            "routing": {"poll_interval_s": 0.05, "connect_timeout_s": 1, **routing},
            "keys": [{"name": "test", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "operator": True}],
        }
    )


@dataclass(frozen=True)
class Endpoint:
    """A running gateway, by one of its two doors."""

    port: int
    serve_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> openai.OpenAI:
        """OpenAI's own client, which leaves all retrying to the gateway."""
        settings = {"base_url": f"{self.url}/v1", "api_key": KEY, "max_retries": 0, "http_client": HTTP_CLIENT}
        return openai.OpenAI(**{**settings, **options})


@contextmanager
def serving(spec: FleetSpec, secrets: Mapping[str, str] | None = None) -> Iterator[Endpoint]:
    """The gateway of `spec`. Its lifespan runs in a server that stands for Ray Serve's HTTP route."""
    own = dict.fromkeys((site.name for site in spec.sites), "site-token")
    app = Gateway(spec, {**own, **(secrets or {})}, host="127.0.0.1").app
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="critical", loop="uvloop"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield Endpoint(spec.ingress.port, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session", autouse=True)
def connections() -> Iterator[None]:
    yield
    HTTP_CLIENT.close()


@pytest.fixture(scope="module")
def three_sites() -> Iterator[list[FakeSite]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeSite(name)) for name in ("east", "west", "north")]


@pytest.fixture(scope="session", autouse=True)
def _scratch() -> Iterator[None]:
    """Where gateways meet that share a port: a path short enough for a Unix socket, and gone afterwards."""
    with TemporaryDirectory(prefix="rf-", dir="/tmp") as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", scratch)
        patch.setattr(tempfile, "tempdir", scratch)
        yield


@pytest.fixture
def sites(three_sites: list[FakeSite]) -> Iterator[list[FakeSite]]:
    yield three_sites
    for site in three_sites:
        site.heal()


@pytest.fixture(scope="module")
def three_engines() -> Iterator[list[Engine]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Engine(name)) for name in ("east", "west", "north")]


@pytest.fixture
def engines(three_engines: list[Engine]) -> Iterator[list[Engine]]:
    """Sites that count tokens, each in a process of its own."""
    yield three_engines
    for engine in three_engines:
        engine.heal()


@pytest.fixture(scope="module")
def gateway(three_sites: list[FakeSite]) -> Iterator[Endpoint]:
    """Impatient; tests share it, so it holds no failure against a site and always has a retry left."""
    with serving(fleet_spec(three_sites, **IMPATIENT, **UNRESENTFUL, **IN_ORDER)) as running:
        yield running


@pytest.fixture(params=["client port", "Serve's route"])
def endpoint(sites: list[FakeSite], gateway: Endpoint, request: pytest.FixtureRequest) -> Endpoint:
    """By each door."""
    return gateway if request.param == "client port" else replace(gateway, port=gateway.serve_port)
