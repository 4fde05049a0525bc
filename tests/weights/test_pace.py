"""Bandwidth, breaker and watchdog, on a clock of the test's own."""

from collections.abc import Callable

import pytest

from weights.copying.pace import ATTEMPTS, TRIP_AFTER, Bandwidth, Pace
from weights.errors import AccessDenied, Stalled, StoreError


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def failing(times: int, error: Exception) -> Callable[[], None]:
    left = [times]

    def work() -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return work


BROKEN = StoreError("s3://b", "read k", "connection reset")
DENIED = AccessDenied("s3://b", "read k", "403")


def test_a_bandwidth_is_kept_over_any_stretch() -> None:
    time = Time()
    bandwidth = Bandwidth(1e6, time.clock, time.sleep)
    for _ in range(50):
        bandwidth.take(100_000)
    assert time.now - 1000 == pytest.approx(5.0)


def test_idle_time_is_not_saved_up() -> None:
    time = Time()
    bandwidth = Bandwidth(1e6, time.clock, time.sleep)
    time.now += 3600
    for _ in range(10):
        bandwidth.take(1_000_000)
    assert time.now - 4600 == pytest.approx(10.0)


def test_what_fails_now_and_then_is_tried_again_after_a_pause() -> None:
    time = Time()
    pace = Pace("s3://b", None, 300, time.clock, time.sleep)
    pace.retried(failing(ATTEMPTS - 1, BROKEN))
    assert 0.5 < time.now - 1000 < 10
    with pytest.raises(StoreError, match="connection reset"):
        pace.retried(failing(ATTEMPTS, BROKEN))


def test_what_is_denied_is_not_tried_again() -> None:
    time = Time()
    with pytest.raises(AccessDenied):
        Pace("s3://b", None, 300, time.clock, time.sleep).retried(failing(1, DENIED))
    assert time.now == 1000


def test_a_store_that_fails_all_the_time_is_left_alone() -> None:
    time = Time()
    pace = Pace("s3://b", None, 300, time.clock, time.sleep)
    for _ in range(TRIP_AFTER // ATTEMPTS):
        with pytest.raises(StoreError, match="connection reset"):
            pace.retried(failing(ATTEMPTS, BROKEN))
    before = time.now
    with pytest.raises(StoreError, match="8 operations in a row failed"), pace.watched():
        pytest.fail("the store was asked")
    assert time.now == before


def test_one_success_closes_the_breaker() -> None:
    time = Time()
    pace = Pace("s3://b", None, 300, time.clock, time.sleep)
    for _ in range(5):
        pace.retried(failing(ATTEMPTS - 1, BROKEN))


def test_a_transfer_where_nothing_moves_ends() -> None:
    time = Time()
    pace = Pace("s3://b", None, 100, time.clock, time.sleep)

    def hang() -> None:
        time.now += 240
        raise StoreError("s3://b", "read k", "timed out")

    with pytest.raises(Stalled, match="s3://b: no byte moved for 240 s"):
        pace.retried(hang)


def test_pieces_are_what_counts_as_moving() -> None:
    time = Time()
    pace = Pace("s3://b", None, 100, time.clock, time.sleep)
    attempts = []

    def slow() -> None:
        attempts.append(time.now)
        for _ in pace.pieces(iter([b"x"])):
            time.now += 90
        raise StoreError("s3://b", "read k", "cut")

    with pytest.raises(StoreError, match="cut"):
        pace.retried(slow)
    assert len(attempts) == ATTEMPTS
