"""The predictive floor: what a placement's own past foretells, and when it keeps silent."""

import math
import random

import pytest

from autoscaling.forecast import DAY, DAYS, LONG_S, SHORT_S, TREND_INTERVALS, History, Series, floor
from autoscaling.state import State, from_plain, plain
from tests.autoscaling.driving import NOON, Load, Site, spec

LIMITS = spec(predictive=True, start_up_s=120, max_replicas=50)
MIDNIGHT = NOON - NOON % 86_400
HOUR = 3600.0


def past(load: Load, until: float, hours: float, every_s: float = SHORT_S / 2) -> History:
    """Of a placement whose load was looked at until `until`, for so long."""
    history = History()
    for step in range(int(hours * HOUR / every_s)):
        at = until - hours * HOUR + step * every_s
        history = history.add(load(at), at)
    return history


def test_a_steady_rise_goes_on_for_the_start_up_delay() -> None:
    history = past(lambda at: 20 + (at - NOON) / 60, NOON, hours=0.25)
    foreseen = floor(history, LIMITS, NOON)
    assert foreseen.replicas == math.ceil(22 / 4 - 0.1)
    assert foreseen.reason == "21.9 requests in 120 s, rising by 1.0 a minute"


def test_a_rise_foretells_no_explosion() -> None:
    history = past(lambda at: max(0.0, (at - NOON) / 10 + 90), NOON, hours=0.25)
    assert floor(history, LIMITS.model_copy(update={"start_up_s": 3600}), NOON).replicas <= math.ceil(1.5 * 90 / 4)


def test_a_step_is_no_trend() -> None:
    history = past(lambda at: 10.0 if at < NOON - 300 else 20.0, NOON, hours=0.25)
    assert floor(history, LIMITS, NOON).replicas == 0


def test_noise_is_hardly_ever_a_trend() -> None:
    chance = random.Random(1)
    found = sum(
        floor(past(lambda _: chance.uniform(8, 12), NOON, hours=0.25), LIMITS, NOON).replicas > 0 for _ in range(300)
    )
    assert found <= 3


def test_minutes_are_too_little_to_go_by() -> None:
    assert floor(past(lambda at: at - NOON + 300, NOON, hours=0.05), LIMITS, NOON).reason == ""
    assert floor(History(), LIMITS, NOON).replicas == 0


def rush(at: float) -> float:
    """Every day from 9 to 10."""
    return 40.0 if 9 * HOUR <= at % 86_400 < 10 * HOUR else 4.0


@pytest.mark.parametrize(("days", "words"), [(1, "yesterday"), (3, "on 3 past days")])
def test_the_daily_rush_is_awaited(days: int, words: str) -> None:
    early = MIDNIGHT + 9 * HOUR - 90
    foreseen = floor(past(rush, early, hours=24 * days + 8), LIMITS, early)
    assert foreseen.replicas == 10
    assert words in foreseen.reason
    long_before = early - HOUR / 2
    assert floor(past(rush, long_before, hours=24 * days + 8), LIMITS, long_before).replicas == 1


def test_an_old_past_has_no_trend() -> None:
    history = past(lambda at: 20 + (at - NOON) / 60, NOON, hours=0.25)
    assert floor(history, LIMITS, NOON + HOUR).reason == ""


def test_less_than_a_day_foretells_nothing() -> None:
    early = MIDNIGHT + 9 * HOUR - 90
    assert floor(past(rush, early, hours=22), LIMITS, early).replicas == 0


def test_a_quiet_day_lowers_what_is_awaited() -> None:
    early = MIDNIGHT + 9 * HOUR - 90
    holiday = past(lambda at: rush(at) / (1 if at < MIDNIGHT else 4), early, hours=32)
    assert floor(holiday, LIMITS, early).replicas == math.ceil(10 / 4 - 0.1)


def test_a_busy_day_raises_it_by_a_factor_of_two_at_most() -> None:
    early = MIDNIGHT + 9 * HOUR - 90
    busy = past(lambda at: rush(at) * (1 if at < MIDNIGHT else 6), early, hours=32)
    assert floor(busy, LIMITS, early).replicas == 20


def test_one_odd_day_is_not_repeated() -> None:
    early = MIDNIGHT + 15 * HOUR
    odd = past(lambda at: 400.0 if 0 <= at - early + 48 * HOUR < HOUR else 4.0, early, hours=72)
    assert floor(odd, LIMITS, early).replicas == 1


def test_the_floor_brings_replicas_before_the_load_and_says_so() -> None:
    site = Site(spec(predictive=True, start_up_s=120, max_replicas=20), target=2, start_up_s=120, now=MIDNIGHT - 86_400)
    while site.now < MIDNIGHT + 9 * HOUR - 10:
        site.step(rush(site.now), seconds=10)
    assert site.ready == 10
    raised = next(decision for decision in reversed(site.decisions) if decision.reason.startswith("up"))
    assert raised.reason == "up 2 to 10: floor 10: 40.0 requests, as yesterday at this time"


def test_the_floor_is_off_where_it_is_not_wanted() -> None:
    site = Site(spec(predictive=False, max_replicas=20), target=3)
    site.run(second / 60 for second in range(900))
    assert not any("rising" in decision.reason for decision in site.decisions)


def test_the_past_is_bounded_and_goes_through_json() -> None:
    history = past(lambda at: at % 97, NOON, hours=24 * 12)
    assert len(history.short.values) == TREND_INTERVALS
    assert len(history.long.values) == DAY * (DAYS + 1)
    assert from_plain(plain(State(history=history))).history == history


def test_a_clock_that_jumps_spoils_no_more_than_it_must() -> None:
    series = Series(100, (1.0, 2.0, 3.0))
    assert series.put(99, 5.0, 10) == Series(99, (1.0, 5.0))
    assert series.put(103, 4.0, 4) == Series(103, (3.0, None, None, 4.0))
    assert series.put(10**9, 4.0, 4) == Series(10**9, (None, None, None, 4.0))
    assert series.put(3, 4.0, 4) == Series(3, (4.0,))


def test_what_happened_within_an_interval_of_the_season_is_its_highest_mean() -> None:
    history = past(lambda at: 9.0 if at % LONG_S < SHORT_S else 1.0, NOON, hours=2)
    assert set(history.long.values) == {9.0}
