"""Where requests can go."""

from typing import Any

import pytest

from clusters.spec import FleetSpec
from serve_app.relay.targets import MissingSecrets, secrets, targets
from tests.fakes.site import FakeSite
from tests.serve_app.conftest import fleet_spec


@pytest.fixture
def spec(sites: list[FakeSite]) -> FleetSpec:
    hosted: dict[str, Any] = {"jurisdiction": "us", "models": [{"model": "chat", "name": "gpt"}]}
    hosted["models"][0] |= {"usd_per_million_input": 1, "usd_per_million_output": 2}
    fleet = fleet_spec(sites).model_dump(mode="json")
    fleet["hosted"] = [
        {"name": "openai", "url": "https://api.example.com/v1", "key_env": "OPENAI_KEY", **hosted},
        {"name": "claude", "url": "http://127.0.0.1:1/", "key_env": "CLAUDE_KEY", "protocol": "anthropic", **hosted},
    ]
    return FleetSpec.model_validate(fleet)


def test_every_missing_secret_is_named(spec: FleetSpec) -> None:
    environ = {"RAYFLEET_TOKEN_WEST": "x", "RAYFLEET_TOKEN_NORTH": "", "CLAUDE_KEY": "x"}
    with pytest.raises(MissingSecrets, match="RAYFLEET_TOKEN_EAST, RAYFLEET_TOKEN_NORTH, OPENAI_KEY"):
        secrets(spec, environ)


def test_each_target_has_its_address_and_its_own_secret(spec: FleetSpec, sites: list[FakeSite]) -> None:
    names = {"RAYFLEET_TOKEN_EAST", "RAYFLEET_TOKEN_WEST", "RAYFLEET_TOKEN_NORTH", "OPENAI_KEY", "CLAUDE_KEY"}
    reachable = targets(spec, secrets(spec, {name: f"secret of {name}" for name in names}))
    east, openai, claude = reachable["east"], reachable["openai"], reachable["claude"]
    assert f"http://{east.host}:{east.port}" == sites[0].endpoint
    assert (east.base, east.tls) == (b"", None)
    assert b"authorization: Bearer secret of RAYFLEET_TOKEN_EAST\r\n" in east.own_headers
    assert (openai.host, openai.port, openai.base) == ("api.example.com", 443, b"/v1")
    assert openai.tls is not None
    assert b"host: api.example.com\r\n" in openai.own_headers
    assert (claude.host, claude.port, claude.base) == ("127.0.0.1", 1, b"")
    assert b"x-api-key: secret of CLAUDE_KEY\r\n" in claude.own_headers
    assert "secret of" not in repr(reachable)
