"""What operators are told of sites."""

from clusters.routing import HealthSpec, RoutingSpec
from clusters.state import Observation
from serve_app.report import site_reports
from serve_app.routing.books import Books
from tests.serve_app.routing.fleets import NOW, fleet, observation, site, state

SPEC = fleet(site("a"), site("b"), routing=RoutingSpec(health=HealthSpec(consecutive_errors=1)))


def test_a_report_tells_health_drain_and_requests() -> None:
    books = Books.of(SPEC)
    books.leases.take("a", "m")
    seen = state(observation("a", drain_s=30), Observation(site="b", error="refused"))
    a, b = site_reports(SPEC, seen, books, NOW, 5)
    assert (a.healthy, a.reason, a.draining, a.age_s, a.leases) == (True, "", True, 0.5, {"m": 1})
    assert a.placements[0].model == "m"
    assert (b.healthy, b.reason, b.draining, b.age_s) == (False, "never observed: refused", False, None)
    assert b.placements == ()


def test_a_report_tells_what_is_ejected_and_what_comes_back() -> None:
    books = Books.of(SPEC)
    books.health.failed("a", "m", "reset", NOW)
    seen = state(observation("a"), observation("b"))
    a, b = site_reports(SPEC, seen, books, NOW, 5)
    assert a.ejected == {"m": "ejected for 5.0 s more: 1 failures in a row, the last: reset"}
    assert (b.ejected, b.shares) == ({}, {"m": 1})
    a, _ = site_reports(SPEC, seen, books, NOW + 5, 60)
    assert a.ejected == {"m": "the next request decides: 1 failures in a row, the last: reset"}
    books.health.probing("a", "m", NOW + 5)
    a, _ = site_reports(SPEC, seen, books, NOW + 6, 60)
    assert a.ejected == {"m": "a probe is under way: 1 failures in a row, the last: reset"}
    books.health.succeeded("a", "m", NOW + 5)
    a, _ = site_reports(SPEC, seen, books, NOW + 10, 60)
    assert (a.ejected, a.shares) == ({}, {"m": 0.5})
