"""Where the planner wants the next replica, and what it says of it."""

import math
from typing import Any

import pytest

from autoscaling.planning.memory import Memory
from autoscaling.planning.plan import Plan, plan
from clusters.routing import PolicySpec, Preset, RoutingSpec
from clusters.spec import FleetSpec, Market
from clusters.state import Bounds, PlacementState, Readiness
from tests.autoscaling.planned_fleets import INTERVAL_S, World, fleet, of, placement, seen, site, three, told

NOW = 1000.0


def first(spec: FleetSpec, _now: float = NOW, _memory: Memory | None = None, **places: PlacementState | None) -> Plan:
    return plan(spec, seen(_now, places), _memory or {}, _now)


def floors(planned: Plan) -> dict[str, int | None]:
    return {name: of(planned, name).min_replicas for name in planned.bounds}


def test_a_burst_goes_first_to_nodes_that_are_paid_for_and_the_reason_says_so() -> None:
    planned = first(three(), home=told(ready=1, load=20), spot=told(ready=0), dear=told(ready=0))
    assert floors(planned) == {"home": 2, "spot": 1, "dear": None}
    assert of(planned, "home").reason == "3 replicas needed: 20 requests at 8; home first: already paid for"
    assert of(planned, "spot").reason.endswith("spot first: 0.40 USD an hour, the least of what has room")


def test_what_the_ready_replicas_are_for_asks_for_nothing() -> None:
    planned = first(three(), home=told(ready=1, load=8), spot=told(ready=0), dear=told(ready=1, load=8))
    assert planned.bounds == {"home": (), "spot": (), "dear": ()}


def test_replicas_that_start_already_are_not_asked_for_elsewhere() -> None:
    planned = first(three(), home=told(ready=0), spot=told(ready=0), dear=told(ready=1, load=16, target_replicas=2))
    assert floors(planned) == {"home": None, "spot": None, "dear": 2}


@pytest.mark.parametrize(
    ("states", "flags"),
    [
        ({"home": None}, {}),
        ({}, {"draining": ["home"]}),
        ({}, {"without_release": ["home"]}),
        ({}, {"notices": ["home"]}),
        ({"home": told(ready=0, readiness=Readiness.FAILED)}, {}),
    ],
    ids=["silent", "draining", "without the release", "its nodes are taken back", "failed"],
)
def test_a_site_that_cannot_take_replicas_gets_none(states: dict[str, Any], flags: dict[str, Any]) -> None:
    places = {"home": told(ready=0), "spot": told(ready=0), "dear": told(ready=1, load=16), **states}
    planned = plan(three(), seen(NOW, places, **flags), {}, NOW)
    assert of(planned, "home").min_replicas is None
    assert of(planned, "spot").min_replicas == 1


def test_a_site_that_says_nothing_of_releases_is_believed_to_have_them_as_the_router_believes() -> None:
    """As after a restart of its agent or its replicator."""
    places = {"home": told(ready=0), "spot": told(ready=0), "dear": told(ready=1, load=16)}
    assert of(plan(three(), seen(NOW, places, silent_of_releases=["home"]), {}, NOW), "home").min_replicas == 1


def test_a_site_that_may_not_process_the_models_requests_gets_none() -> None:
    sites = [site("home", 0.1).model_copy(update={"jurisdiction": "ch"}), site("spot", 0.4), site("dear")]
    spec = fleet(sites, three().placements, jurisdictions=("us",))
    planned = first(spec, home=told(ready=0), spot=told(ready=0), dear=told(ready=1, load=16))
    assert floors(planned) == {"home": None, "spot": 1, "dear": None}


def test_a_pool_that_is_full_of_another_models_replicas_gets_none() -> None:
    places = [placement("a", "x", max_replicas=2), placement("a"), placement("b")]
    spec = fleet([site("a", 0.1, max_nodes=2), site("b")], places)
    own, other = told(ready=0), told("x", ready=2, load=0)
    planned = plan(spec, seen(NOW, {"a": [other, own], "b": told(ready=1, load=16)}), {}, NOW)
    assert floors(planned) == {"a": None, "b": 2}


def test_two_models_do_not_both_take_the_last_free_node() -> None:
    sites = [site("a", 0.1, max_nodes=1), site("b", max_nodes=8)]
    spec = fleet(sites, [placement(where, model, max_replicas=4) for model in ("x", "y") for where in ("a", "b")])
    busy = [told(model, ready=1, load=16) for model in ("x", "y")]
    planned = plan(spec, seen(NOW, {"a": [told("x", ready=0), told("y", ready=0)], "b": busy}), {}, NOW)
    assert [of(planned, "a", model).min_replicas for model in ("x", "y")] == [1, None]
    assert [of(planned, "b", model).min_replicas for model in ("x", "y")] == [None, 2]


def test_a_replica_on_a_part_of_a_card_costs_that_part_of_the_node() -> None:
    spec = fleet([site("whole", 0.6), site("half", 1.0)], [placement("whole"), placement("half", gpus=0.5)])
    planned = first(spec, whole=told(ready=1, load=16), half=told(ready=0))
    assert floors(planned) == {"whole": None, "half": 1}
    assert "0.50 USD an hour" in of(planned, "half").reason


def test_replicas_that_the_provider_takes_are_replaced_at_another_site() -> None:
    taken = told(ready=2, load=14, leaving=2)
    places = {"home": told(ready=2, load=16), "spot": taken, "dear": told(ready=0)}
    planned = plan(three(), seen(NOW, places, notices=["spot"]), {}, NOW)
    assert floors(planned) == {"home": None, "spot": None, "dear": 2}
    assert "the provider takes 2 at spot" in of(planned, "dear").reason


def test_what_a_silent_site_served_is_asked_for_elsewhere_for_a_while() -> None:
    spec = three()
    planned = first(spec, home=told(ready=1, load=8), spot=told(ready=2, load=16), dear=told(ready=0))
    assert floors(planned) == {"home": None, "spot": None, "dear": None}
    silent = first(spec, NOW + 10, planned.memory, home=told(ready=1, load=8), spot=None, dear=told(ready=0))
    assert floors(silent) == {"home": 2, "dear": 1}
    assert "spot is not heard from" in of(silent, "dear").reason
    late = first(spec, NOW + 300, planned.memory, home=told(ready=1, load=8), spot=None, dear=told(ready=0))
    assert floors(late) == {"home": None, "dear": None}


def test_load_that_has_moved_from_a_silent_site_is_not_counted_twice() -> None:
    spec = three()
    planned = first(spec, home=told(ready=2, load=8), spot=told(ready=2, load=16), dear=told(ready=2, load=0))
    now = NOW
    for _ in range(6):
        now += INTERVAL_S
        planned = first(spec, now, planned.memory, home=told(ready=2, load=12), spot=None, dear=told(ready=2, load=12))
        assert floors(planned) == {"home": None, "dear": None}


def test_requests_that_wait_make_a_site_that_is_ready_sooner_worth_its_price() -> None:
    waiting = told(ready=1, load=8, waiting=16)
    for usd, chosen in ((0.001, {"slow": None, "fast": 3}), (0.0, {"slow": 3, "fast": None})):
        policy = PolicySpec(usd_per_late_second=usd)
        spec = fleet(
            [site("slow", 0.5), site("fast", 2.0), site("here", 3.0)],
            [placement("slow", start_up_s=300), placement("fast", start_up_s=30), placement("here", max_replicas=1)],
            RoutingSpec(policy="p", policies={"p": policy}),
        )
        planned = first(spec, slow=told(ready=0), fast=told(ready=0), here=waiting)
        got = floors(planned)
        assert {name: got[name] and 3 for name in chosen} == chosen
        if usd:
            assert of(planned, "fast").reason.endswith("ready 270 s before slow, worth 1.50 USD an hour more")


def test_lateness_that_costs_less_than_the_dearer_replica_waits_for_the_cheap_one() -> None:
    """8 requests × 10 s × 0.0001 USD are less than 1.5 USD an hour for a minute and a half."""
    policy = PolicySpec(usd_per_late_second=0.0001)
    spec = fleet(
        [site("slow", 0.5), site("fast", 2.0), site("here", 3.0)],
        [placement("slow", start_up_s=40), placement("fast", start_up_s=30), placement("here", max_replicas=1)],
        RoutingSpec(policy="p", policies={"p": policy}),
    )
    planned = first(spec, slow=told(ready=0), fast=told(ready=0), here=told(ready=1, load=8, waiting=8))
    assert floors(planned) == {"slow": 1, "fast": None, "here": None}


def test_a_placement_of_which_nothing_is_known_scales_by_itself() -> None:
    spec = three()
    for load in (None, math.nan, math.inf, -1.0):
        dumb = told(ready=1, load=1, held=0.0, running=load, waiting=load)
        planned = first(spec, home=dumb, spot=told(ready=1, load=0), dear=told(ready=1, load=0))
        assert planned.bounds == {"home": (), "spot": (), "dear": ()}


def test_a_model_with_one_placement_is_left_alone() -> None:
    spec = fleet([site("a")], [placement("a")])
    assert first(spec, a=told(ready=1, load=100)).bounds == {"a": ()}


def test_no_order_goes_to_a_site_that_is_not_heard() -> None:
    assert set(first(three(), home=told(), spot=None, dear=told()).bounds) == {"home", "dear"}


def test_a_dear_site_does_not_grow_for_a_burst_for_which_cheaper_replicas_start() -> None:
    world = World.of(three(1), home=2, dear=1).run(20, 120)
    world.run(36, 10)
    least, most, reason = world.history[-1]["dear"]
    assert (least, most) == (None, 1)
    assert reason == "at most 1: replicas start at spot for the same requests, for 0.40 instead of 1.00 USD an hour"
    world.run(36, 120)
    assert [len(world.regions[name].born) for name in ("home", "spot", "dear")] == [2, 2, 1]
    assert world.history[-1]["dear"][1] is None, "lifted once the replicas are there"


def test_a_ceiling_is_lifted_when_the_cheaper_replicas_are_not_there_in_time_and_stays_lifted() -> None:
    world = World.of(three(1), home=2, dear=1).run(20, 120)
    world.regions["spot"].spec = placement("spot", start_up_s=3600)
    capped = []
    for _ in range(60):
        world.step(36)
        capped.append(world.history[-1]["dear"][1] is not None)
    assert any(capped)
    assert sum(capped) * INTERVAL_S <= 30 + INTERVAL_S, "as long as a cheaper replica takes to start"
    assert len(world.regions["dear"].born) >= 3, "then it grows for its own load"


def test_there_is_no_ceiling_where_requests_do_not_go_by_price() -> None:
    spec = three(1).model_copy(update={"routing": RoutingSpec(policy=Preset.NEAREST)})
    world = World.of(spec, home=2, dear=1).run(20, 120).run(36, 60)
    assert {each["dear"][1] for each in world.history} == {None}


def test_there_is_no_ceiling_where_cheaper_sites_are_full() -> None:
    world = World.of(three(1), home=2, dear=1).run(20, 120).run(300, 60)
    assert {each["dear"][1] for each in world.history} == {None}


def test_a_cheap_sleeper_takes_over_what_a_dear_site_carries_all_the_time() -> None:
    spec = fleet([site("cheap", 0.3), site("dear")], [placement("cheap"), placement("dear")])
    world = World.of(spec, dear=3).run(20, 30)
    assert {each["cheap"][0] for each in world.history} == {None}, "not before it was there for the delay"
    world.run(20, 60)
    assert world.history[-1]["cheap"] == (
        1,
        None,
        "20 requests at all times: cheap carries them for 0.30 USD an hour, dear for 1.00 USD an hour",
    )
    world.run(20, 900)
    assert [len(world.regions[name].born) for name in ("cheap", "dear")] == [3, 0]


def test_a_site_to_which_no_request_follows_gets_one_replica_and_no_more() -> None:
    spec = fleet([site("cheap", 0.3), site("dear")], [placement("cheap"), placement("dear")])
    memory: Memory = {}
    for step in range(100):
        now = NOW + step * INTERVAL_S
        awake = told(ready=min(step, 1), load=0, held=0.0)
        planned = plan(spec, seen(now, {"cheap": awake, "dear": told(ready=3, load=20)}), memory, now)
        memory = planned.memory
        assert floors(planned)["cheap"] in (None, 1)


def test_a_floor_goes_down_only_when_less_was_enough_for_the_delay() -> None:
    world = World.of(three(), home=1).run(40, 60)
    high = world.history[-1]["spot"][0]
    assert high == 3
    world.history.clear()
    world.run(4, 55)
    assert {each["spot"][0] for each in world.history} == {high}
    world.run(4, 120)
    assert world.history[-1]["spot"][0] is None


def test_bounds_of_an_earlier_planner_stay_until_this_one_has_watched_for_the_delay() -> None:
    spec = three()
    bounds = Bounds(model="m", min_replicas=3, reason="3 replicas needed")
    memory: Memory = {}
    kept = []
    for step in range(20):
        now = NOW + step * INTERVAL_S
        places = {"home": told(ready=1), "spot": told(ready=3, bounds=bounds), "dear": told(ready=0)}
        planned = plan(spec, seen(now, places), memory, now)
        memory = planned.memory
        kept.append(of(planned, "spot"))
    assert kept[:12] == [bounds] * 12
    assert kept[-1].min_replicas is None


def test_a_draining_site_has_no_floor_from_the_first_plan_on() -> None:
    world = World.of(three(), home=1).run(40, 60)
    assert world.history[-1]["spot"][0]
    places = {name: told(ready=1, load=8) for name in world.regions}
    planned = plan(world.fleet, seen(world.now + 5, places, draining=["spot"]), world.memory, world.now + 5)
    assert of(planned, "spot").min_replicas is None


def test_markets_settle_what_costs_the_same() -> None:
    spec = fleet(
        [site("demand"), site("spot", market=Market.SPOT), site("reserved", market=Market.RESERVED), site("busy")],
        [placement("demand"), placement("spot"), placement("reserved", max_replicas=1), placement("busy")],
    )
    planned = first(spec, demand=told(ready=0), spot=told(ready=0), reserved=told(ready=0), busy=told(ready=1, load=24))
    assert floors(planned) == {"demand": None, "spot": 1, "reserved": 1, "busy": None}
