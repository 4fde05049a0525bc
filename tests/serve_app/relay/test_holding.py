"""The queue of those that found every site full."""

from clusters.routing import HoldSpec
from serve_app.relay.holding import Holding


def held(**spec: int) -> Holding[str]:
    return Holding(HoldSpec(**{"max_waiting": 100, "max_waiting_per_tenant": 50, **spec}))


def test_tenants_take_turns() -> None:
    holding = held()
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        assert holding.join(name[0], name)
    assert list(holding.in_turn(10)) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert list(holding.in_turn(4)) == ["a1", "b1", "c1", "a2"]


def test_a_tenant_whose_request_went_stands_last() -> None:
    holding = held()
    for name in ("a1", "a2", "b1"):
        holding.join(name[0], name)
    holding.leave("a", "a1")
    assert list(holding.in_turn(10)) == ["b1", "a2"]
    assert holding.size == 2


def test_both_bounds_hold() -> None:
    holding = held(max_waiting=3, max_waiting_per_tenant=2)
    assert [holding.join("a", name) for name in ("1", "2", "3")] == [True, True, False]
    assert [holding.join("b", name) for name in ("4", "5")] == [True, False]
    assert holding.size == 3


def test_who_left_or_never_came_changes_nothing() -> None:
    holding = held()
    holding.leave("a", "a1")
    holding.join("a", "a1")
    holding.leave("a", "a1")
    holding.leave("a", "a1")
    assert holding.size == 0
    assert list(holding.in_turn(5)) == []
