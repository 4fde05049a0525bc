"""Nodes shared out between a placement's own pool and spot."""

from hypothesis import given
from hypothesis import strategies as st

from clusters.mix import Room, on_demand, split

ROOMS = st.builds(
    lambda name, usd, most, busy, avoided: Room(name, usd, most, min(busy, most), avoided),
    st.sampled_from("abcd"),
    st.sampled_from([0.3, 0.4, 0.5]),
    st.integers(0, 6),
    st.integers(0, 6),
    st.booleans(),
)
SPOT = st.lists(ROOMS, max_size=4, unique_by=lambda room: room.pool)
SHARES = st.integers(0, 100).map(lambda hundredths: hundredths / 100)


def own(most: int = 9, busy: int = 0, avoided: bool = False) -> Room:
    return Room("own", 0.9, most, busy, avoided)


def zones(*busy: int, most: int = 9) -> list[Room]:
    return [Room(name, 0.4, most, count) for name, count in zip("abc", busy, strict=False)]


def test_the_share_is_on_demand_and_the_rest_is_even_over_spot() -> None:
    assert split(3, 0.33, own(), zones(0, 0)) == {"own": 1, "a": 1, "b": 1}
    assert split(8, 0.25, own(), zones(0, 0, 0)) == {"own": 2, "a": 2, "b": 2, "c": 2}
    assert split(5, 0, own(), [Room("dear", 0.5, 9), Room("cheap", 0.3, 9)]) == {"own": 0, "dear": 2, "cheap": 3}


def test_a_least_share_is_rounded_up() -> None:
    assert [on_demand(nodes, 0.3) for nodes in (0, 1, 3, 4, 10)] == [0, 1, 1, 2, 3]
    assert on_demand(10, 0.1 + 0.2) == 3


def test_what_spot_lacks_comes_from_the_own_pool() -> None:
    assert split(4, 0, own(), zones(0, 0, most=1)) == {"own": 2, "a": 1, "b": 1}
    assert split(4, 0, own(), [Room("a", 0.4, 9, avoided=True), Room("b", 0.4, 1)]) == {"own": 3, "a": 0, "b": 1}


def test_an_avoided_pool_is_better_than_nothing() -> None:
    assert split(4, 0.5, own(most=2), [Room("a", 0.4, 9, avoided=True)]) == {"own": 2, "a": 2}
    assert split(3, 1, own(avoided=True), zones(0, 0)) == {"own": 0, "a": 2, "b": 1}
    assert split(2, 1, own(avoided=True), []) == {"own": 2}


def test_busy_nodes_stay_where_they_are() -> None:
    assert split(4, 0.25, own(busy=3), zones(0, 0)) == {"own": 3, "a": 1, "b": 0}
    assert split(4, 0.25, own(busy=1), zones(3, 0)) == {"own": 1, "a": 3, "b": 0}


@given(st.integers(0, 20), SHARES, st.integers(0, 12), SPOT)
def test_it_is_never_too_many_and_too_few_only_where_all_is_full(
    nodes: int, share: float, most: int, spot: list[Room]
) -> None:
    counts = split(nodes, share, own(most), spot)
    rooms = {room.pool: room for room in (own(most), *spot)}
    assert counts.keys() == rooms.keys()
    assert all(0 <= counts[name] <= room.most for name, room in rooms.items())
    assert sum(counts.values()) == min(nodes, sum(room.most for room in rooms.values()))
    assert counts["own"] >= min(on_demand(nodes, share), most)


@given(st.integers(0, 20), SHARES, SPOT)
def test_zones_with_room_differ_by_one_at_most(nodes: int, share: float, spot: list[Room]) -> None:
    idle = [Room(room.pool, room.usd_per_hour, room.most) for room in spot]
    counts = split(nodes, share, own(20), idle)
    fullest = max((counts[room.pool] for room in idle), default=0)
    assert all(counts[room.pool] >= fullest - 1 for room in idle if counts[room.pool] < room.most)
