"""The scaling decision, as a pure function of signal, past and clock."""

from hypothesis import given
from hypothesis import strategies as st

from autoscaling.policy import Limits, State, decide
from autoscaling.signals import Sample, Signal, queue_depth

LIMITS = Limits(min_replicas=1, max_replicas=8, target_queue_depth=4, scale_down_delay_s=60)


def test_scales_up_at_once_to_what_the_queue_needs() -> None:
    decision = decide(Signal(17, 1), State(), LIMITS, current=1, now=0)
    assert decision.target == 5
    assert "up 1 to 5" in decision.reason


def test_scales_down_only_after_the_delay() -> None:
    busy = decide(Signal(17, 1), State(), LIMITS, current=1, now=0)
    early = decide(Signal(1, 5), busy.state, LIMITS, current=5, now=59)
    late = decide(Signal(1, 5), early.state, LIMITS, current=5, now=61)
    assert (early.target, late.target) == (5, 1)
    assert "within 60 s" in early.reason
    assert "down 5 to 1" in late.reason


def test_no_data_is_not_zero() -> None:
    decision = decide(Signal(None, 0), State(), LIMITS, current=5, now=1e9)
    assert decision.target == 5
    assert "no replica reported" in decision.reason


def test_a_clock_that_jumps_back_forgets_the_future_instead_of_holding_for_ever() -> None:
    ahead = decide(Signal(32, 1), State(), LIMITS, current=1, now=10_000)
    back = decide(Signal(0, 8), ahead.state, LIMITS, current=8, now=0)
    assert back.target == 1


@given(depth=st.floats(0, 1e6), current=st.integers(0, 100), now=st.floats(0, 1e9))
def test_stays_within_bounds(depth: float, current: int, now: float) -> None:
    decision = decide(Signal(depth, 1), State(), LIMITS, current, now)
    assert LIMITS.min_replicas <= decision.target <= LIMITS.max_replicas


@given(low=st.floats(0, 1e4), more=st.floats(0, 1e4), current=st.integers(1, 8))
def test_more_load_never_means_fewer_replicas(low: float, more: float, current: int) -> None:
    less = decide(Signal(low, 1), State(), LIMITS, current, now=0)
    greater = decide(Signal(low + more, 1), State(), LIMITS, current, now=0)
    assert less.target <= greater.target


@given(depth=st.floats(0, 100), current=st.integers(1, 8))
def test_constant_load_settles_on_one_target(depth: float, current: int) -> None:
    state, targets = State(), []
    for now in range(200):
        decision = decide(Signal(depth, 1), state, LIMITS, current, now)
        state, current = decision.state, decision.target
        targets.append(current)
    assert len(set(targets[61:])) == 1


@given(depths=st.lists(st.floats(0, 40), max_size=300))
def test_what_it_remembers_is_bounded(depths: list[float]) -> None:
    state, current = State(), 1
    for now, depth in enumerate(depths):
        decision = decide(Signal(depth, 1), state, LIMITS, current, now)
        state, current = decision.state, decision.target
    assert len(state.needs) <= LIMITS.max_replicas
    assert [need.replicas for need in state.needs] == sorted({need.replicas for need in state.needs}, reverse=True)


def test_queue_depth_sums_replicas_and_averages_their_window() -> None:
    one = [Sample(0, 100), Sample(95, 2), Sample(99, 4)]
    two = [Sample(98, 10)]
    assert queue_depth([one, two], now=100, window_s=10) == Signal(13, 2)


def test_queue_depth_of_silent_replicas_is_unknown() -> None:
    assert queue_depth([[Sample(0, 5)], []], now=100, window_s=10) == Signal(None, 0)
