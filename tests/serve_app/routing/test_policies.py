"""The presets, and the settings that a fleet gives them."""

from collections import Counter

import pytest
from msgspec.structs import replace

from clusters.routing import PolicySpec, Preset, RoutingSpec
from clusters.spec import Market
from serve_app.routing.policies import UnknownPolicy
from tests.serve_app.routing.fleets import (
    FACTS,
    LEAST_LOADED,
    Desk,
    desk,
    fleet,
    hosted,
    measure,
    observation,
    site,
    state,
    with_policy,
)


def test_least_loaded_goes_where_most_slots_are_free() -> None:
    spec = fleet(site("a"), site("b"), site("c"))
    at = Desk(
        spec, state(observation("a", running=5), observation("b", running=9, replicas=3), observation("c", running=8))
    )
    assert at.targets(LEAST_LOADED) == {"b"}


def test_own_leases_count_until_the_site_has_counted_them() -> None:
    at = Desk(fleet(site("a")), state(observation("a", running=2)))
    assert at.score("a", LEAST_LOADED) == 0.2
    at.books.leases.take("a", "m")
    at.books.leases.take("a", "m")
    assert at.score("a", LEAST_LOADED) == 0.4
    at.fleet = state(observation("a", age_s=0, running=4))
    assert at.score("a", LEAST_LOADED) == 0.4
    at.books.leases.release("a", "m")
    assert at.score("a", LEAST_LOADED) == pytest.approx(0.3)


def test_fastest_and_nearest() -> None:
    near = observation("near").model_copy(update={"round_trip_s": 0.001})
    at = Desk(fleet(site("near"), site("quick")), state(near, observation("quick")))
    measure(at, "near", seconds=0.5)
    measure(at, "quick", seconds=0.1)
    assert at.targets(replace(FACTS, policy="nearest")) == {"near"}
    assert at.targets(replace(FACTS, policy="fastest")) == {"quick"}


def test_weights_share_requests_among_those_that_remain() -> None:
    routing = with_policy(Preset.WEIGHTED, weights={"a": 60, "b": 40})
    at = desk("a", "b", "c", routing=routing)
    counts = Counter(at.choose().target for _ in range(2000))
    assert set(counts) == {"a", "b"}
    assert 1100 < counts["a"] < 1300
    assert {at.choose(excluded={"a": "reset"}).target for _ in range(50)} == {"b"}
    assert {at.choose(excluded={"a": "reset", "b": "reset"}).target for _ in range(50)} == {"c"}


def test_the_standby_serves_only_without_the_primary() -> None:
    routing = with_policy(Preset.PRIMARY_STANDBY, order=("b", "a"))
    spec = fleet(site("a", usd=0.1), site("b", usd=9), site("c", usd=0.1), routing=routing)
    at = Desk(spec, state(observation("a"), observation("b", running=39), observation("c")))
    assert at.targets() == {"b"}
    assert at.choose(excluded={"b": "reset"}).target == "a"
    assert at.choose(excluded={"b": "reset", "a": "reset"}).target == "c"


@pytest.mark.parametrize(
    ("reserved", "spot", "target"),
    [(0, 0, "reserved"), (7, 0, "reserved"), (8, 0, "spot"), (8, 7, "spot"), (8, 8, "hosted"), (30, 30, "hosted")],
)
def test_spill_fills_reserved_capacity_first(reserved: int, spot: int, target: str) -> None:
    spec = fleet(
        site("reserved", market=Market.RESERVED, usd=50),
        site("spot", market=Market.SPOT, usd=0.1),
        hosted=(hosted("hosted", use="by_price"),),
        routing=with_policy(Preset.SPILL, spill_load=0.8),
    )
    at = Desk(spec, state(observation("reserved", running=reserved), observation("spot", running=spot)))
    assert at.targets() == {target}


def test_spilling_over_everything_goes_by_dollars() -> None:
    routing = with_policy(Preset.SPILL, spill_load=0.8, usd_per_late_second=1)
    spec = fleet(site("reserved", market=Market.RESERVED, usd=50), site("spot", market=Market.SPOT), routing=routing)
    at = Desk(spec, state(observation("reserved", running=9), observation("spot", running=35)))
    assert at.targets() == {"reserved"}


def test_a_policy_is_the_requests_else_the_fleets() -> None:
    spec = fleet(site("a", usd=9), site("b", usd=1), routing=RoutingSpec(policy="cheapest"))
    at = Desk(spec, state(observation("a"), observation("b", running=9)))
    assert at.choose().policy == "cheapest"
    assert at.targets() == {"b"}
    assert at.choose(LEAST_LOADED).policy == "least_loaded"
    assert at.targets(LEAST_LOADED) == {"a"}
    with pytest.raises(KeyError):
        at.choose(replace(FACTS, policy="unheard-of"))


def test_a_fleet_that_names_a_policy_it_lacks_does_not_start() -> None:
    with pytest.raises(UnknownPolicy, match="policy no-such"):
        desk("a", routing=RoutingSpec(policy="no-such"))


def test_the_settings_of_a_named_policy_apply() -> None:
    routing = RoutingSpec(
        policies={"eager": PolicySpec(preset=Preset.BALANCED, ttft_target_s=0.001, usd_per_late_second=9)}
    )
    at = desk("a", routing=routing)
    (told,) = at.choose(replace(FACTS, policy="eager")).explanation().considered
    assert told.usd_late == pytest.approx(9 * (told.predicted_ttft_s - 0.001))
