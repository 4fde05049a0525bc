"""Putting it together."""

import pytest

from serve_app.gateway import MissingTokens, site_tokens
from tests.fakes.site import FakeSite
from tests.serve_app.conftest import fleet_spec


def test_every_missing_token_is_named(sites: list[FakeSite]) -> None:
    spec = fleet_spec(sites)
    with pytest.raises(MissingTokens, match="RAYFLEET_TOKEN_EAST, RAYFLEET_TOKEN_NORTH"):
        site_tokens(spec, {"RAYFLEET_TOKEN_WEST": "x", "RAYFLEET_TOKEN_NORTH": ""})


def test_tokens_by_site(sites: list[FakeSite]) -> None:
    environ = {f"RAYFLEET_TOKEN_{site.name.upper()}": f"token of {site.name}" for site in sites}
    assert site_tokens(fleet_spec(sites), environ)["west"] == "token of west"
