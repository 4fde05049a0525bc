"""What holds for the scaling decision whatever comes: loads, readings, clocks."""

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.policy import decide
from autoscaling.signals import Signal
from autoscaling.state import from_plain, plain
from clusters.scaling import AutoscalingSpec
from tests.autoscaling.driving import Site, signal, spec

QUICK = {"scale_down_delay_s": 60, "scale_to_zero_delay_s": 60, "window_s": 12}
LIMITS = st.builds(
    spec,
    min_replicas=st.integers(0, 2),
    max_replicas=st.integers(2, 40),
    target_queue_depth=st.floats(0.5, 50),
    max_up_factor=st.floats(1.1, 10),
    max_up_replicas=st.integers(1, 20),
    max_down_factor=st.floats(1.1, 10),
    max_down_replicas=st.integers(1, 20),
    scale_down_margin=st.floats(0, 0.5),
    policy=st.sampled_from(["queue_depth", "utilisation"]),
    predictive=st.booleans(),
    **{name: st.just(value) for name, value in QUICK.items()},
)
NUMBERS = st.one_of(st.none(), st.floats(0, 300), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0]))
JUMPS = st.one_of(st.floats(0, 20), st.sampled_from([0.0, -1e9, -3600.0, -1.0, 61.0, 86_400.0, 1e9]))
SIGNALS = st.builds(
    Signal,
    at=st.sampled_from([0.0, -5.0, -60.0, 60.0]),  # beside `now`
    running=NUMBERS,
    waiting=NUMBERS,
    held=NUMBERS,
    kv_usage=NUMBERS,
    gpu_utilisation=NUMBERS,
    ready=st.integers(0, 9),
    reporting=st.integers(0, 9),
)
WALKS = st.lists(st.tuples(JUMPS, SIGNALS), max_size=60)


def walk(site: Site, steps: list[tuple[float, Signal]]) -> Site:
    for jump, seen in steps:
        site.now = max(0.0, site.now + jump)
        site.see(Signal(site.now + seen.at, *(getattr(seen, name) for name in list(Signal.__slots__)[1:])))
    return site


@given(limits=LIMITS, start=st.integers(0, 50), steps=WALKS)
def test_never_outside_the_bounds_and_never_without_a_reason(
    limits: AutoscalingSpec, start: int, steps: list[tuple[float, Signal]]
) -> None:
    site = walk(Site(limits, target=start), steps)
    assert all(limits.min_replicas <= target <= limits.max_replicas for target in site.targets)
    assert all(decision.reason.partition(": ")[2] for decision in site.decisions)


@given(limits=LIMITS, start=st.integers(0, 40), steps=WALKS)
def test_steps_are_no_larger_than_the_slew_limits(
    limits: AutoscalingSpec, start: int, steps: list[tuple[float, Signal]]
) -> None:
    site = Site(limits, target=min(max(start, limits.min_replicas), limits.max_replicas))
    for step in steps:
        before = site.target
        walk(site, [step])
        base = max(step[1].ready, 1)
        most = max(base + 1, min(base * limits.max_up_factor, base + limits.max_up_replicas))
        least = max(math.ceil(before / limits.max_down_factor), before - limits.max_down_replicas)
        assert least <= site.target <= max(before, most, site.state.floor.replicas) or (before, site.target) == (1, 0)


@given(limits=LIMITS, start=st.integers(0, 40), steps=WALKS, silent=st.lists(st.floats(0, 1e5), max_size=20))
def test_no_data_never_changes_anything(
    limits: AutoscalingSpec, start: int, steps: list[tuple[float, Signal]], silent: list[float]
) -> None:
    site = walk(Site(limits, target=min(max(start, limits.min_replicas), limits.max_replicas)), steps)
    target = site.target
    for index, jump in enumerate(silent):
        site.now += jump
        seen = [
            Signal(site.now, running=math.nan, waiting=1, ready=3, reporting=3),
            Signal(site.now, running=1, waiting=-1, ready=3, reporting=3),
            Signal(site.now, held=None),
            Signal(site.now - 11, running=0, waiting=0, ready=3, reporting=3),
        ]
        assert site.see(seen[index % len(seen)]).target == target


@given(limits=LIMITS, steps=WALKS)
def test_the_state_goes_through_json_and_stays_small(
    limits: AutoscalingSpec, steps: list[tuple[float, Signal]]
) -> None:
    state = walk(Site(limits), steps).state
    written = json.dumps(plain(state), allow_nan=False)
    assert from_plain(json.loads(written)) == state


def test_the_state_of_weeks_is_bounded() -> None:
    site = Site(spec(max_replicas=1000, target_queue_depth=1, window_s=3600, panic_window_s=0.1, predictive=True))
    site.run((random.Random(day).random() * 1000 for day in range(3000)), seconds=299)
    assert len(site.state.history.long.values) == 8 * 288
    site.run((1000.0 - second / 10 for second in range(4000)), seconds=1)
    assert len(site.state.load.slots) <= 62
    assert len(site.state.needs.steps) <= 62
    assert len(json.dumps(plain(site.state))) < 40_000


@settings(max_examples=50)
@given(limits=LIMITS, load=st.floats(0, 400), start=st.integers(0, 40), start_up_s=st.sampled_from([0.0, 30.0]))
def test_a_constant_load_comes_to_a_constant_target(
    limits: AutoscalingSpec, load: float, start: int, start_up_s: float
) -> None:
    limits = limits.model_copy(update={"policy": "queue_depth"})
    site = Site(limits, target=min(max(start, limits.min_replicas), limits.max_replicas), start_up_s=start_up_s)
    # The slowest slew takes one replica per window down, and one per start-up up.
    site.run([load] * 150, seconds=10)
    site.run([load] * 100, seconds=1)
    assert len(set(site.targets[-100:])) == 1
    enough = math.ceil(load / limits.target_queue_depth - 1e-6)
    assert site.target >= min(enough, limits.max_replicas)


@given(limits=LIMITS, steps=WALKS, low=st.floats(0, 400), more=st.floats(0, 400), ready=st.integers(0, 9))
def test_more_load_never_means_fewer_replicas(
    limits: AutoscalingSpec, steps: list[tuple[float, Signal]], low: float, more: float, ready: int
) -> None:
    site = walk(Site(limits), steps)
    less, greater = (
        decide(signal(load, site.now, ready), site.state, limits, site.target, site.now) for load in (low, low + more)
    )
    assert less.target <= greater.target


@settings(max_examples=25)
@given(low=st.floats(0, 60), more=st.floats(0, 60), start=st.integers(1, 8))
def test_a_greater_constant_load_settles_on_no_fewer(low: float, more: float, start: int) -> None:
    limits = spec(**QUICK)
    assert Site(limits, target=start).settle(low, 300) <= Site(limits, target=start).settle(low + more, 300)


@pytest.mark.parametrize("block_s", [1, 10, 120], ids=lambda block: f"held for {block} s")
@settings(max_examples=5, deadline=None)
@given(mean=st.floats(1, 60), seed=st.integers(0, 2**32))
def test_noise_of_a_fifth_changes_little(block_s: int, mean: float, seed: int) -> None:
    chance, site = random.Random(seed), Site(spec(max_replicas=20, predictive=True), start_up_s=60)
    site.settle(mean)
    site.decisions.clear()
    for _ in range(3600 // block_s):
        site.run([mean * chance.uniform(0.8, 1.2)] * block_s)
    assert site.changes <= 12
    assert max(site.targets) - min(site.targets) <= 1 + math.ceil(0.4 * mean / 4)


@given(
    load=st.floats(0.5, 32),
    jump=st.one_of(st.floats(-1e9, -0.01), st.floats(31, 1e9)),
    after=st.floats(0, 32),
)
def test_after_a_jump_of_the_clock_nothing_goes_before_the_delay(load: float, jump: float, after: float) -> None:
    site = Site(spec(**QUICK))
    before = site.settle(load, 120)
    site.now += jump
    site.decisions.clear()
    site.run([after] * 60)
    assert min(site.targets) >= before
    assert max(site.targets) <= max(before, math.ceil(after / 4 - 1e-6))
    assert site.settle(after, 240) <= max(1, math.ceil(after / 4 / 0.9))


@settings(max_examples=25)
@given(load=st.floats(1, 1000), start_up_s=st.just(1e9), deadline_s=st.sampled_from([60.0, 600.0]))
def test_replicas_that_never_come_do_not_make_it_run_away(load: float, start_up_s: float, deadline_s: float) -> None:
    site = Site(spec(max_replicas=1000, start_up_deadline_s=deadline_s, **QUICK), start_up_s=start_up_s)
    site.run([load + 10 * second for second in range(600)])
    assert max(site.targets) <= 4, "four times the one that is ready, though the queue only grows"
