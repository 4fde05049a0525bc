"""A request for a model that sleeps everywhere: held, told to the site that is to wake, and answered."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.site import HANG, FakeSite, error
from tests.serve_app.asking import CHAT, metric, post, sent
from tests.serve_app.conftest import Endpoint, fleet_spec, serving
from tests.serve_app.faults.fleets import hosted, with_hosted
from tests.serve_app.waiting import wait_for


@pytest.fixture
def east(three_sites: list[FakeSite]) -> Iterator[FakeSite]:
    site = three_sites[0]
    site.readiness, site.replicas = "asleep", 0
    yield site
    site.heal()


@pytest.fixture
def endpoint(east: FakeSite) -> Iterator[Endpoint]:
    with serving(fleet_spec([east], hold={"deadline_s": 0.5, "wake_s": 60})) as endpoint:
        yield endpoint


def test_a_request_waits_for_a_sleeper_to_wake(endpoint: Endpoint, east: FakeSite) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(post, endpoint, CHAT) for _ in range(2)]
        wait_for(lambda: east.held == {"chat": 2})
        east.readiness = "starting"
        wait_for(lambda: metric(endpoint, "rayfleet_held_requests") == 2)
        assert not any(each.done() for each in asked)
        east.readiness, east.replicas = "ready", 1
        answers = [each.result() for each in asked]
    assert [answer.status for answer in answers] == [200, 200]
    assert all(int(answer.headers["x-rayfleet-queue-ms"]) > 0 for answer in answers)
    wait_for(lambda: not east.held)


def test_a_client_that_leaves_is_no_load(endpoint: Endpoint, east: FakeSite) -> None:
    with sent(endpoint, CHAT):
        wait_for(lambda: east.held == {"chat": 1})
    wait_for(lambda: not east.held)


def test_who_never_wakes_costs_the_client_no_more_than_wake_s(east: FakeSite) -> None:
    with serving(fleet_spec([east], hold={"deadline_s": 0, "wake_s": 1})) as endpoint:
        answer = post(endpoint, CHAT)
    assert answer.status == 429
    assert answer.headers["retry-after"]


def test_a_site_whose_proxy_forgets_the_model_for_a_moment_is_asked_again(sites: list[FakeSite]) -> None:
    north = sites[2]
    with serving(fleet_spec([north])) as endpoint:
        north.plan(error(404))
        answer = post(endpoint, CHAT)
        assert (answer.status, answer.headers["x-rayfleet-attempts"]) == (200, "2")
        north.plan(*[error(404)] * 3)
        assert post(endpoint, CHAT).status == 502, "not for ever"


def test_a_site_that_is_awake_answers_at_once_and_nobody_is_woken(east: FakeSite, three_sites: list[FakeSite]) -> None:
    with serving(fleet_spec([east, three_sites[1]])) as both:
        answer = post(both, CHAT)
        assert (answer.status, answer.headers["x-rayfleet-site"]) == (200, "west")
    assert not east.held


def test_what_a_last_resort_answers_wakes_the_sleeper_all_the_same(east: FakeSite, sites: list[FakeSite]) -> None:
    provider = sites[1]
    offer = {"model": "chat", "name": "chat", "usd_per_million_input": 1, "usd_per_million_output": 1}
    api = hosted("api", f"{provider.endpoint}/v1", models=[offer])
    provider.plan(HANG)
    with serving(with_hosted(fleet_spec([east]), api), {"api": provider.token}) as endpoint:
        with sent(endpoint, CHAT):
            wait_for(lambda: len(provider.requests) == 1)
            wait_for(lambda: east.held == {"chat": 1})
            assert metric(endpoint, "rayfleet_held_requests") == 0
        wait_for(lambda: not east.held)
