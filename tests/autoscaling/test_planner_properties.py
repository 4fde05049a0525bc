"""What holds for the planner whatever comes: loads, silences, restarts, and sites that never do what they should."""

import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.planning.memory import Memory
from autoscaling.planning.plan import plan
from clusters.spec import FleetSpec, Market
from clusters.state import Bounds, PlacementState, Readiness
from tests.autoscaling.planned_fleets import INTERVAL_S, QUIET, World, fleet, of, placement, seen, site, three, told

NOW = 1000.0
NAMES = ("a", "b", "c")
SITES = st.tuples(
    *(
        st.builds(
            site,
            st.just(name),
            st.sampled_from([0.0, 0.3, 0.5, 1.0, 4.0]),
            st.sampled_from(list(Market)),
            min_nodes=st.integers(0, 2),
            max_nodes=st.integers(2, 8),
        )
        for name in NAMES
    )
)
PLACEMENTS = st.tuples(
    *(
        st.builds(
            placement,
            st.just(name),
            gpus=st.sampled_from([0.5, 1.0]),
            min_replicas=st.integers(0, 2),
            max_replicas=st.integers(2, 8),
            start_up_s=st.sampled_from([0.0, 30.0, 120.0]),
        )
        for name in NAMES
    )
)
FLEETS = st.builds(fleet, SITES, PLACEMENTS)
NUMBERS = st.one_of(st.none(), st.floats(0, 100), st.sampled_from([math.nan, math.inf, -1.0]))
STATES = st.one_of(
    st.none(),
    st.builds(
        told,
        ready=st.integers(0, 6),
        running=NUMBERS,
        waiting=NUMBERS,
        held=NUMBERS,
        target_replicas=st.integers(0, 8),
        leaving=st.integers(0, 6),
        readiness=st.sampled_from(list(Readiness)),
        bounds=st.one_of(
            st.none(),
            st.builds(
                Bounds,
                model=st.just("m"),
                min_replicas=st.one_of(st.none(), st.integers(0, 99)),
                max_replicas=st.one_of(st.none(), st.integers(0, 99)),
            ),
        ),
    ),
)
LOOKS = st.fixed_dictionaries(dict.fromkeys(NAMES, STATES))
FLAGS = st.fixed_dictionaries({flag: st.lists(st.sampled_from(NAMES)) for flag in ("draining", "notices")})
WALKS = st.lists(st.tuples(st.floats(0, 60), LOOKS, FLAGS), max_size=30)


@settings(deadline=None)
@given(spec=FLEETS, steps=WALKS)
def test_bounds_only_narrow_those_of_the_fleet_and_have_a_reason(
    spec: FleetSpec, steps: list[tuple[float, dict[str, PlacementState | None], dict[str, list[str]]]]
) -> None:
    memory: Memory = {}
    now = NOW
    for seconds, looks, flags in steps:
        now += seconds
        planned = plan(spec, seen(now, looks, **flags), memory, now)
        memory = planned.memory
        assert planned.bounds.keys() == {name for name, state in looks.items() if state is not None}
        for each in spec.placements:
            check(of(planned, each.site), each.autoscaling.min_replicas, each.autoscaling.max_replicas)
            state, most = looks[each.site], of(planned, each.site).max_replicas
            assert state is None or most is None or most >= state.replicas, "nothing that is ready is taken"


def check(bounds: Bounds, least: int, most: int) -> None:
    low = least if bounds.min_replicas is None else bounds.min_replicas
    high = most if bounds.max_replicas is None else bounds.max_replicas
    assert least <= low <= high <= most


@settings(max_examples=15, deadline=None)
@given(spec=FLEETS, load=st.integers(0, 150), ready=st.tuples(*[st.integers(0, 3)] * 3))
def test_a_constant_load_comes_to_a_constant_plan(spec: FleetSpec, load: int, ready: tuple[int, int, int]) -> None:
    world = World.of(spec, **dict(zip(NAMES, ready, strict=True))).run(load, 900)
    world.history.clear()
    world.run(load, 150)
    bounds = [{name: told[:2] for name, told in step.items()} for step in world.history]
    assert all(step == bounds[0] for step in bounds)


@settings(deadline=None)
@given(
    spec=FLEETS,
    ready=st.tuples(*[st.integers(0, 4)] * 3),
    load=st.tuples(*[st.integers(0, 60)] * 3),
    more=st.tuples(*[st.integers(0, 60)] * 3),
)
def test_more_load_never_means_fewer_replicas_in_all(
    spec: FleetSpec, ready: tuple[int, ...], load: tuple[int, ...], more: tuple[int, ...]
) -> None:
    def total(loads: tuple[int, ...]) -> int:
        states = {
            name: told(ready=count, load=each, held=None if count else float(each))
            for name, count, each in zip(NAMES, ready, loads, strict=True)
        }
        planned = plan(spec, seen(NOW, states), {}, NOW)
        return sum(max(ready[NAMES.index(n)], of(planned, n).min_replicas or 0) for n in NAMES)

    assert total(load) <= total(tuple(a + b for a, b in zip(load, more, strict=True)))


@settings(max_examples=10, deadline=None)
@given(
    spec=FLEETS,
    loads=st.lists(st.integers(0, 100), min_size=1, max_size=6),
    restart_at=st.integers(0, 60),
)
def test_a_restart_lowers_no_floor_and_the_fleet_ends_up_the_same(
    spec: FleetSpec, loads: list[int], restart_at: int
) -> None:
    kept, restarted = World.of(spec, a=1), World.of(spec, a=1)
    for step in range(60):
        load = loads[step * len(loads) // 60]
        kept.step(load)
        before = {name: least(region.bounds) for name, region in restarted.regions.items()}
        if step == restart_at:
            restarted.restart()
        restarted.step(load)
        if step == restart_at:
            assert all(least(region.bounds) >= before[name] for name, region in restarted.regions.items())
    assert restarted.totals <= kept.totals + 3
    kept.run(loads[-1], 600)
    restarted.run(loads[-1], 600)
    assert [len(region.born) for region in kept.regions.values()] == [
        len(region.born) for region in restarted.regions.values()
    ]


def least(bounds: Bounds | None) -> int:
    return (bounds.min_replicas or 0) if bounds else 0


@pytest.mark.parametrize("load", [4, 20, 36, 90])
def test_a_restart_under_constant_load_changes_nothing(load: int) -> None:
    world = World.of(three(1), home=1).run(load, 900)
    settled = world.history[-1]
    for _ in range(5):
        world.restart()
        world.history.clear()
        world.run(load, 200)
        assert all(step == settled for step in world.history)


@settings(max_examples=15, deadline=None)
@given(
    load=st.integers(0, 100),
    kinds=st.dictionaries(st.sampled_from(["home", "spot", "dear"]), st.sampled_from(["silent", "nan", "none"])),
)
def test_what_is_silent_or_says_nonsense_lowers_nothing(load: int, kinds: dict[str, str]) -> None:
    spec = three()
    world = World.of(spec, home=1).run(load, 300)
    before = world.history[-1]
    looks: dict[str, Any] = {}
    for name, region in world.regions.items():
        ready = region.ready(world.now)
        number = {"nan": math.nan, "none": None}.get(kinds.get(name, ""), region.load)
        looks[name] = told(ready=ready, held=0.0 if ready else number, running=number, bounds=region.bounds)
        if kinds.get(name) == "silent":
            looks[name] = None
    memory, now = world.memory, world.now
    for _ in range(10):
        now += INTERVAL_S
        planned = plan(spec, seen(now, looks), memory, now)
        memory = planned.memory
        for name in planned.bounds:
            assert (of(planned, name).min_replicas or 0) >= (before[name][0] or 0)
            assert of(planned, name).max_replicas is None


@settings(max_examples=10, deadline=None)
@given(loads=st.lists(st.integers(0, 60), min_size=2, max_size=8), dies_at=st.integers(1, 100))
def test_a_planner_killed_for_good_leaves_sites_that_scale_by_themselves(loads: list[int], dies_at: int) -> None:
    world, alone = World.of(three(1), home=1), World.of(three(1), home=1)
    alone.planned = False
    for step in range(120):
        world.planned = step < dies_at
        for each in (world, alone):
            each.step(loads[step * len(loads) // 120])
        assert world.totals <= 18
    for each in (world, alone):
        each.run(loads[-1], 600)
        each.late = 0
        each.run(loads[-1], 60)
    assert world.totals <= alone.totals + 1
    assert world.late <= alone.late


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_a_fifth_changes_few_bounds(seed: int) -> None:
    chance = random.Random(seed)
    world = World.of(three(1), home=2).run(40, 900)
    world.history.clear()
    for _ in range(720):
        world.step(round(40 * chance.uniform(0.8, 1.2)))
    bounds = [tuple(told[:2] for told in step.values()) for step in world.history]
    assert sum(a != b for a, b in pairwise(bounds)) <= 12, "in an hour"


def test_replicas_that_never_come_do_not_make_it_run_away() -> None:
    spec = fleet([site("a", 0.3, max_nodes=99), site("b", max_nodes=99)], [placement(n, max_replicas=99) for n in "ab"])
    memory: Memory = {}
    asked = {"a": 0, "b": 1}
    for step in range(200):
        now = NOW + step * INTERVAL_S
        looks = {
            "a": told(ready=0, held=0.0, target_replicas=asked["a"]),
            "b": told(ready=1, load=8 + 10 * step, target_replicas=asked["b"]),
        }
        planned = plan(spec, seen(now, looks), memory, now)
        memory = planned.memory
        asked = {name: max(asked[name], of(planned, name).min_replicas or 0) for name in asked}
    assert max(asked.values()) <= 4, "four times the one that is ready"


def test_replicas_that_are_overdue_are_asked_for_elsewhere() -> None:
    world = World.of(three(), home=2)
    world.regions["spot"].spec = placement("spot", start_up_s=3600)
    world.run(32, QUIET["start_up_deadline_s"] + 60)
    assert world.regions["dear"].ready(world.now) >= 2


def test_the_planner_saves_dollars_and_delays_nothing() -> None:
    """The same bursts with and without it: fewer dear replicas, no more requests in want of one."""
    usd, late = [], []
    for planned in (True, False):
        world = World.of(three(1), home=2, dear=1)
        world.planned = planned
        spent = 0.0
        for step in range(720):
            world.step(44 if step % 240 < 120 else 18)
            spent += sum(
                price * len(world.regions[name].born) * INTERVAL_S / 3600
                for name, price in (("home", 0.5), ("spot", 0.4), ("dear", 1.0))
            )
        usd.append(spent)
        late.append(world.late)
    assert usd[0] < 0.95 * usd[1]
    assert late[0] <= late[1]
