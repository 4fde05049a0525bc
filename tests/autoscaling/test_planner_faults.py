"""What becomes of a plan when the planner, its orders or what it hears is cut short; several of these at once, too."""

import random
from collections.abc import Mapping
from itertools import combinations

import pytest

from autoscaling.planning.memory import Memory
from autoscaling.planning.plan import plan
from clusters.scaling import PlannerSpec
from clusters.state import Bounds, PlacementState
from tests.autoscaling.planned_fleets import INTERVAL_S, QUIET, World, of, seen, three, told

NAMES = ("home", "spot", "dear")
SILENT_S = PlannerSpec().silent_s
DELAY_S = float(QUIET["scale_down_delay_s"])
FLOOR = Bounds(model="m", min_replicas=4, reason="4 replicas needed")


class Watcher:
    """A planner that has just started. Its orders are in force at once, and stay where it gives none."""

    def __init__(self, **bounds: Bounds):
        self.now = 1000.0
        self._memory: Memory = {}
        self._bounds: dict[str, Bounds | None] = dict(bounds)

    def look(self, **places: PlacementState | None) -> Mapping[str, int]:
        """An interval later: the floors of the sites that are heard, 0 where there is none."""
        self.now += INTERVAL_S
        told_now = {
            name: state and state.model_copy(update={"bounds": self._bounds.get(name)})
            for name, state in places.items()
        }
        planned = plan(three(), seen(self.now, told_now), self._memory, self.now)
        self._memory = planned.memory
        self._bounds |= {name: next(iter(bounds), None) for name, bounds in planned.bounds.items()}
        return {name: of(planned, name).min_replicas or 0 for name in planned.bounds}

    def look_for(self, seconds: float, **places: PlacementState | None) -> list[Mapping[str, int]]:
        return [self.look(**places) for _ in range(int(seconds / INTERVAL_S))]


def by_turns(look: int) -> set[str]:
    """Each of the three is silent for 100 s, the first 10 of them together with the one before it."""
    at = look * INTERVAL_S % 270
    return {name for turn, name in enumerate(NAMES) if (at - 90 * turn) % 270 < 100}


def test_a_load_that_is_gone_is_not_reckoned_with_for_ever_because_always_some_site_is_silent() -> None:
    watcher = Watcher()
    ready = {"home": 2, "spot": 4, "dear": 2}
    watcher.look_for(60, **{name: told(ready=count, load=20) for name, count in ready.items()})
    states = {name: told(ready=count, load=2) for name, count in ready.items()}
    looks = [
        watcher.look(**{name: None if name in by_turns(number) else states[name] for name in NAMES})
        for number in range(int(3600 / INTERVAL_S))
    ]
    within = int(SILENT_S / INTERVAL_S)
    assert all(sum(floors.values()) for floors in looks[1:within]), "the silent may have had the rest of it"
    assert not any(sum(floors.values()) for floors in looks[within + int(DELAY_S / INTERVAL_S) + 40 :])


def test_sites_that_are_silent_by_turns_lower_no_floor_and_nobody_waits_for_it() -> None:
    world = World.of(three(1), home=1).run(44, 600)
    before, late, replicas = world.history[-1], world.late, world.totals
    for look in range(216):
        world.silent = by_turns(look)
        world.step(44)
        assert all((world.history[-1][name][0] or 0) >= (before[name][0] or 0) for name in NAMES)
    world.silent = set()
    world.run(44, 600)
    assert world.totals <= replicas + 1, "a take-over may have begun"
    assert world.late == late


@pytest.mark.parametrize("seed", range(3))
def test_sites_that_are_heard_now_and_then_make_nothing_run_away(seed: int) -> None:
    chance = random.Random(seed)
    world = World.of(three(1), home=1).run(44, 600)
    late = world.late
    for _ in range(200):
        world.silent = {name for name in NAMES if chance.random() < 0.3}
        world.step(44)
        assert world.totals <= 14, "the 6 that it needs, and at each site what the others have"
    assert world.late == late


def test_a_planner_that_hears_sites_one_after_another_keeps_the_floor_of_each() -> None:
    watcher = Watcher(home=Bounds(model="m", min_replicas=2, reason="2 replicas needed"), spot=FLOOR)
    home, spot, dear = told(ready=2, load=16), told(ready=2, load=16, target_replicas=4), told(ready=1, load=8)
    assert watcher.look(home=None, spot=None, dear=dear) == {"dear": 0}
    assert watcher.look(home=home, spot=None, dear=dear) == {"home": 2, "dear": 0}
    assert watcher.look(home=home, spot=spot, dear=dear) == {"home": 2, "spot": 4, "dear": 0}


def test_a_site_that_takes_no_orders_is_relied_upon_no_longer_than_its_replicas_may_take() -> None:
    """It is heard, and its own queue does not ask for them."""
    watcher, places = Watcher(), {"home": told(ready=2, load=16), "spot": told(ready=0)}
    looks = watcher.look_for(300, **places, dear=told(ready=1, load=24))
    asked_at = next(number for number, floors in enumerate(looks) if floors["spot"])
    relied = [number for number, floors in enumerate(looks) if not floors["dear"]]
    assert relied, "at first the cheaper site alone is asked"
    assert (relied[-1] - asked_at) * INTERVAL_S <= QUIET["start_up_deadline_s"] + INTERVAL_S
    assert looks[-1]["dear"] == 3


@pytest.mark.parametrize("took", [took for count in range(3) for took in combinations(NAMES, count)], ids="+".join)
def test_after_a_planner_that_was_killed_between_its_orders_the_next_comes_to_the_same(took: tuple[str, ...]) -> None:
    """They were to cap the dear site and to let the spot site grow for it; either alone would be wrong."""
    kept, killed = (World.of(three(1), home=2, dear=1).run(20, 120) for _ in range(2))
    killed.deaf = set(NAMES) - set(took)
    for world in (kept, killed):
        world.step(36)
        assert (world.history[-1]["spot"][0], world.history[-1]["dear"][1]) == (1, 1)
    killed.restart()
    killed.deaf = set()
    most = 0
    for _ in range(120):
        kept.step(36)
        killed.step(36)
        most = max(most, killed.totals)
    assert killed.late <= kept.late + INTERVAL_S * 12, "as much as waits within one interval"
    assert most <= 7, "the 5 that it needs, and what the dear site takes for its own queue before the ceiling is there"
    assert [len(region.born) for region in killed.regions.values()] == [
        len(region.born) for region in kept.regions.values()
    ]


DUMB = told(ready=2, load=None, target_replicas=4)
"""It is heard, and none of its engines reports."""


def test_a_planner_that_starts_anew_keeps_a_floor_where_no_engine_reports_for_as_long_as_that_may_last() -> None:
    watcher, others = Watcher(spot=FLOOR), {"home": told(ready=2, load=8), "dear": told(ready=0)}
    looks = watcher.look_for(SILENT_S, **others, spot=DUMB)
    assert {floors["spot"] for floors in looks} == {4}
    later = watcher.look_for(2 * SILENT_S, **others, spot=DUMB)
    assert {floors["spot"] for floors in later[1:]} == {0}, "its own bounds are not taken for an earlier planner's"


def test_a_floor_that_was_found_where_no_engine_reported_stays_until_the_load_was_watched_for_the_delay() -> None:
    watcher, others = Watcher(spot=FLOOR), {"home": told(ready=2, load=8), "dear": told(ready=0)}
    watcher.look_for(100, **others, spot=DUMB)
    looks = watcher.look_for(2 * DELAY_S, **others, spot=told(ready=4, load=8))
    assert {floors["spot"] for floors in looks[: int(DELAY_S / INTERVAL_S)]} == {4}
    assert looks[-1]["spot"] < 4


def test_replicas_that_an_earlier_planner_asked_for_are_not_asked_for_again_because_no_engine_reports() -> None:
    places = {"home": told(ready=2, load=16), "dear": told(ready=1, load=24)}
    assert Watcher(spot=FLOOR).look(**places, spot=DUMB) == {"home": 0, "spot": 4, "dear": 0}


def test_a_ceiling_that_is_found_where_no_engine_reports_is_lifted() -> None:
    capped = told(ready=1, load=None, bounds=Bounds(model="m", max_replicas=1, reason="at most 1"))
    places = {"home": told(ready=2, load=8), "spot": told(ready=0, target_replicas=1), "dear": capped}
    planned = plan(three(), seen(1000.0, places), {}, 1000.0)
    assert of(planned, "dear").max_replicas is None


def test_without_metrics_of_any_engine_a_restart_lowers_nothing() -> None:
    floor = Bounds(model="m", min_replicas=2, reason="2 replicas needed")
    looks = Watcher(home=floor, spot=FLOOR).look_for(SILENT_S, **dict.fromkeys(NAMES, DUMB))
    assert all(floors == {"home": 2, "spot": 4, "dear": 0} for floors in looks)
