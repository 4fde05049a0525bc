"""What a site remembers of what ingresses and the planner told it."""

from autoscaling.ray_notes import Order
from clusters.state import Bounds, BoundsOrder, Held
from serve_app.told import MAX_INGRESSES, Told

NOON = 1_000_000.0


def test_without_a_word_nothing_is_known() -> None:
    assert Told().held("m", NOON) is None
    assert Told().order("m", NOON) is None


def test_what_ingresses_hold_is_summed_and_a_model_that_none_names_has_none() -> None:
    told = Told()
    told.hear(Held(ingress="a", held={"m": 3}), NOON)
    told.hear(Held(ingress="b", held={"m": 2, "other": 1}), NOON)
    assert (told.held("m", NOON), told.held("quiet", NOON)) == (5, 0)


def test_an_ingress_replaces_what_it_said_and_is_forgotten_when_it_is_silent() -> None:
    told = Told()
    told.hear(Held(ingress="a", held={"m": 3}), NOON)
    told.hear(Held(ingress="a", held={"m": 1}), NOON + 1)
    assert told.held("m", NOON + 1) == 1
    assert told.held("m", NOON + 6.1) is None, "not zero"


def test_an_ingress_that_looks_seldom_says_for_how_long_its_word_holds() -> None:
    told = Told()
    told.hear(Held(ingress="a", held={"m": 3}, lifetime_s=180), NOON)
    assert told.held("m", NOON + 179) == 3
    assert told.held("m", NOON + 181) is None


def test_the_first_request_for_a_model_is_news() -> None:
    told = Told()
    assert not told.hear(Held(ingress="a"), NOON)
    assert told.hear(Held(ingress="a", held={"m": 1}), NOON)
    assert not told.hear(Held(ingress="a", held={"m": 2}), NOON)


def test_no_crowd_of_ingresses_fills_the_memory() -> None:
    told = Told()
    for number in range(10 * MAX_INGRESSES):
        told.hear(Held(ingress=str(number), held={"m": 1}), NOON)
    held = told.held("m", NOON)
    assert held is not None
    assert held <= MAX_INGRESSES


def test_bounds_count_for_their_lifetime() -> None:
    told = Told()
    bounds = Bounds(model="m", min_replicas=2, max_replicas=3, reason="two sites are away")
    assert told.bind(BoundsOrder(started_at=1, lifetime_s=30, bounds=(bounds,)), NOON)
    assert told.bounds("m", NOON + 29) == bounds
    assert told.bounds("other", NOON) is None
    assert told.order("m", NOON) == Order(NOON, None, 2, 3)
    assert told.order("m", NOON + 30) is None


def test_a_planner_that_was_replaced_gives_no_orders_any_more() -> None:
    told = Told()
    new = BoundsOrder(started_at=2, lifetime_s=30, bounds=(Bounds(model="m", min_replicas=1),))
    old = BoundsOrder(started_at=1, lifetime_s=30, bounds=(Bounds(model="m", min_replicas=9),))
    assert told.bind(old, NOON)
    assert told.bind(new, NOON)
    assert not told.bind(old, NOON)
    assert told.bounds("m", NOON) == new.bounds[0]
    assert told.bind(old, NOON + 31), "unless the new one has fallen silent"
