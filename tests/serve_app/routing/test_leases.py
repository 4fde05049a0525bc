"""Counting our own requests."""

from serve_app.routing.leases import Leases


def test_what_came_and_went_since_a_reading_is_known() -> None:
    leases = Leases()
    leases.take("a", "m")
    assert leases.since("a", "m", 1.0) == 0
    leases.take("a", "m")
    leases.take("a", "m")
    leases.take("a", "other")
    assert (leases.in_flight("a", "m"), leases.since("a", "m", 1.0)) == (3, 2)
    for _ in range(3):
        leases.release("a", "m")
    assert (leases.in_flight("a", "m"), leases.since("a", "m", 1.0)) == (0, -1)
    assert leases.since("a", "m", 2.0) == 0
    assert leases.open() == {("a", "m"): 0, ("a", "other"): 1}


def test_requests_are_what_the_site_counted_and_what_changed_since() -> None:
    leases = Leases()
    for _ in range(4):
        leases.take("a", "m")
    place = ("a", "m")
    assert leases.requests(place, 6, 1.0) == 6
    leases.take("a", "m")
    assert leases.requests(place, 6, 1.0) == 7
    leases.release("a", "m")
    leases.release("a", "m")
    assert leases.requests(place, 6, 1.0) == 5


def test_the_first_leases_of_a_place_count_too() -> None:
    leases = Leases()
    assert leases.requests(("a", "m"), 2, 1.0) == 2
    leases.take("a", "m")
    assert leases.requests(("a", "m"), 2, 1.0) == 3


def test_a_site_never_has_less_than_we_sent_there() -> None:
    leases = Leases()
    for _ in range(4):
        leases.take("a", "m")
    assert leases.requests(("a", "m"), 1, 1.0) == 4
    assert leases.requests(("a", "m"), None, 1.0) == 4
    assert leases.requests(("b", "m"), 3, 1.0) == 3
    assert leases.requests(("b", "m"), None, 1.0) == 0
