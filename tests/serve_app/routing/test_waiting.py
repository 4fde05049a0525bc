"""What a request that is held waits for."""

from typing import Any

import pytest
from msgspec.structs import replace

from clusters.scaling import AutoscalingSpec
from clusters.state import Bounds, Observation, Readiness, ReleasePhase, ReleaseState
from serve_app.routing.choice import Awaited
from tests.serve_app.routing.fleets import (
    FACTS,
    RELEASE,
    Desk,
    desk,
    fleet,
    hosted,
    observation,
    placement,
    site,
    state,
)

ASLEEP: dict[str, Any] = {"readiness": Readiness.ASLEEP, "replicas": 0, "target_replicas": 0}
STARTING: dict[str, Any] = {"readiness": Readiness.STARTING, "replicas": 0, "target_replicas": 1}
FULL: dict[str, Any] = {"running": 40}


def sleepers(*observations: Observation, usd: tuple[float, ...] = (2.0, 1.0), most: int = 2) -> Desk:
    """Sites a and b, of which b is cheaper."""
    scaling = AutoscalingSpec(min_replicas=0, max_replicas=most)
    sites = [site(name, usd=price) for name, price in zip("ab", usd, strict=True)]
    return Desk(
        fleet(*sites, placements=tuple(placement(name, autoscaling=scaling) for name in "ab")), state(*observations)
    )


def test_the_cheapest_sleeper_is_woken() -> None:
    choice = sleepers(observation("a", **ASLEEP), observation("b", **ASLEEP)).choose()
    assert (choice.target, choice.full, choice.awaited) == (None, True, Awaited("b", waking=True))


def test_a_replica_that_is_on_its_way_is_waited_for_before_a_cheaper_site_is_woken() -> None:
    choice = sleepers(observation("a", **STARTING), observation("b", **ASLEEP)).choose()
    assert choice.awaited == Awaited("a", waking=True)


def test_who_should_have_come_long_ago_is_not_waited_for_alone() -> None:
    late = {**STARTING, "since": -1000}
    assert sleepers(observation("a", **late), observation("b", **ASLEEP)).choose().awaited == Awaited("b", True)
    alone = sleepers(observation("a", **late), observation("b", readiness=Readiness.FAILED, replicas=0)).choose()
    assert alone.awaited == Awaited("a", True)


def test_an_awake_site_answers_though_a_sleeper_is_cheaper() -> None:
    choice = sleepers(observation("a"), observation("b", **ASLEEP)).choose()
    assert choice.target == "a"


def test_a_full_site_that_may_grow_is_waited_for_without_more_patience() -> None:
    choice = sleepers(observation("a", **FULL), observation("b", **FULL)).choose()
    assert choice.awaited == Awaited("b", waking=False)


@pytest.mark.parametrize(
    "held_back",
    [
        pytest.param({"replicas": 2, "target_replicas": 2, "running": 80}, id="all its replicas are there"),
        pytest.param({**FULL, "bounds": Bounds(model="m", max_replicas=1)}, id="the planner keeps it small"),
    ],
)
def test_a_full_site_that_can_not_grow_is_not(held_back: dict[str, Any]) -> None:
    choice = sleepers(observation("a", **FULL), observation("b", **held_back)).choose()
    assert choice.awaited == Awaited("a", waking=False)


def test_no_site_is_woken_for_weights_that_it_lacks() -> None:
    def with_release(name: str, phase: ReleasePhase) -> Observation:
        seen = observation(name, **ASLEEP)
        assert seen.state is not None
        releases = (ReleaseState(model="m", release=RELEASE, phase=phase),)
        return seen.model_copy(update={"state": seen.state.model_copy(update={"releases": releases})})

    lacking = with_release("b", ReleasePhase.COPYING)
    choice = sleepers(with_release("a", ReleasePhase.STORED), lacking).choose()
    assert choice.awaited == Awaited("a", waking=True)
    assert sleepers(with_release("a", ReleasePhase.ABSENT), lacking).choose().awaited is None


def test_nobody_is_woken_where_rules_forbid_it() -> None:
    spec = fleet(site("a", jurisdiction="us"), site("b", jurisdiction="ch", usd=5))
    at = Desk(spec, state(observation("a", **ASLEEP), observation("b", **ASLEEP)))
    assert at.choose(replace(FACTS, jurisdictions=frozenset(("ch",)))).awaited == Awaited("b", waking=True)


def test_a_last_resort_that_answers_still_wakes_a_site() -> None:
    spec = fleet(site("a"), hosted=(hosted("api", use="last_resort"),))
    choice = Desk(spec, state(observation("a", **ASLEEP))).choose()
    assert (choice.target, choice.last_resort, choice.awaited) == ("api", True, Awaited("a", waking=True))


def test_a_reading_that_is_only_late_is_waited_for_and_one_that_failed_is_not() -> None:
    late = observation("a", age_s=7)
    assert Desk(fleet(site("a")), state(late)).choose().full
    failed = late.model_copy(update={"error": "ConnectionRefusedError"})
    assert not Desk(fleet(site("a")), state(failed)).choose().full


def test_where_all_is_well_nobody_waits() -> None:
    assert desk("a", "b").choose().awaited is None
