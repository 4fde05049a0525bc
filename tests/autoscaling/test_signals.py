"""What replicas say, summed; and the memories of the last seconds."""

import math

from hypothesis import given
from hypothesis import strategies as st

from autoscaling.signals import Reading, Signal, combine
from autoscaling.windows import Peaks, Window
from tests.autoscaling.driving import NOON


def test_sums_requests_and_averages_shares() -> None:
    readings = [Reading(NOON, 3, 2, 0.5, 0.9), Reading(NOON - 5, 4, 0, 0.75)]
    seen = combine(readings, held=6, ready=3, now=NOON, max_age_s=10)
    assert seen == Signal(NOON, 7, 2, 6, 0.625, 0.9, ready=3, reporting=2)
    assert seen.load == 15
    assert seen.kv_used == 1.25


def test_old_future_and_impossible_readings_are_no_readings() -> None:
    readings = [Reading(NOON - 11, 3, 2), Reading(NOON + 11, 3, 2), Reading(NOON, math.nan, 2), Reading(NOON, 3, -1)]
    assert combine(readings, held=None, ready=4, now=NOON, max_age_s=10).load is None


def test_an_impossible_share_is_left_out() -> None:
    readings = [Reading(NOON, 1, 0, math.nan, -1), Reading(NOON, 1, 0, 0.4)]
    seen = combine(readings, held=0, ready=2, now=NOON, max_age_s=10)
    assert (seen.kv_usage, seen.gpu_utilisation) == (0.4, None)


def test_without_a_ready_replica_all_there_is_is_held() -> None:
    assert Signal(NOON, held=4).load == 4
    assert Signal(NOON).load is None
    assert Signal(NOON, ready=1, held=4).load is None


def test_a_silent_ingress_does_not_silence_the_engines() -> None:
    assert Signal(NOON, running=3, waiting=1, ready=1, reporting=1).load == 4


def test_every_piece_of_time_weighs_the_same() -> None:
    window = Window()
    for at, value in [(0, 1), (0.5, 3), (1, 8), (2, 2), (2.1, 2), (2.2, 2)]:
        window = window.add(value, NOON + at, span_s=10, slot_s=1)
    assert window.mean(NOON + 2.5, span_s=10, slot_s=1) == 4
    assert window.mean(NOON + 2.5, span_s=1, slot_s=1) == 2
    assert window.mean(NOON + 20, span_s=10, slot_s=1) is None


@given(
    values=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 99)), min_size=1, max_size=80), span_s=st.floats(1, 600)
)
def test_the_peak_is_the_highest_of_the_span_and_no_older(values: list[tuple[float, int]], span_s: float) -> None:
    peaks, now, seen = Peaks(), NOON, []
    for gap, value in values:
        now += gap
        seen.append((now, value))
        peaks = peaks.add(value, now, span_s)
        assert peaks.highest >= max(value for at, value in seen if at >= now - span_s)
        # A piece of time, a sixtieth of the span, is forgotten as a whole.
        assert peaks.highest <= max(value for at, value in seen if at >= now - span_s * 62 / 60 - 0.002)
        assert len(peaks.steps) <= 62
