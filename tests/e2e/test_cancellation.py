"""A client that leaves frees its engine."""

from tests.e2e.conftest import Fleet
from tests.e2e.waiting import wait_for

SITE = "aws-us-east-1"


def test_a_client_that_leaves_stops_the_engine(fleet: Fleet) -> None:
    body = {"model": "demo-chat", "prompt": "a", "max_tokens": 1000, "stream": True, "ignore_eos": True}
    with fleet.http.stream("POST", "/v1/completions", json=body, headers={"x-rayfleet-site-only": SITE}) as response:
        pieces = response.iter_raw()  # held: when it goes, so does the connection
        next(pieces)
        assert wait_for(lambda: _running(fleet) == 1, 5), "the engine never ran the request"
    assert wait_for(lambda: _running(fleet) == 0, 5), "the engine still runs an abandoned request"


def _running(fleet: Fleet) -> int | None:
    """By the site's own word."""
    token = fleet.local.heads[SITE].environ[fleet.local.fleet.site(SITE).token_variable]
    endpoint = fleet.local.fleet.site(SITE).endpoint
    state = fleet.http.get(f"{endpoint}/fleet/state", headers={"Authorization": f"Bearer {token}"}).json()
    running: int | None = state["placements"][0]["running"]
    return running
