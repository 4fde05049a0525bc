"""What measurements are taken to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.routing.latency import (
    BANDS,
    MAX_AGE_S,
    OVERHEAD_TOKENS,
    PRIOR_OUTPUT_TOKENS,
    PRIOR_RATE,
    PRIOR_SECONDS_PER_TOKEN,
    Latency,
)

TOKENS = 1000 - OVERHEAD_TOKENS
LOADS = (0.0, 0.3, 0.6, 0.8, 1.5)


def measured(*rates: tuple[float, float]) -> Latency:
    """By load, at time 0."""
    latency = Latency()
    for load, rate in rates:
        latency.first_token("a", "m", 1000 * rate, TOKENS, load, 0)
    return latency


def test_nothing_is_known_at_first() -> None:
    latency = Latency()
    assert latency.rates("a", "m", 0) is None
    assert latency.best_rate("m") == PRIOR_RATE
    assert latency.seconds_per_token("a", "m", 0) == PRIOR_SECONDS_PER_TOKEN
    assert latency.output_tokens("m") == PRIOR_OUTPUT_TOKENS


def test_bands_without_measurements_are_like_the_nearest() -> None:
    assert measured((0.6, 0.001)).rates("a", "m", 0) == (0.001,) * 5
    assert measured((0.3, 0.001), (0.8, 0.003)).rates("a", "m", 0) == (0.001, 0.001, 0.001, 0.003, 0.003)


def test_measurements_are_averaged() -> None:
    rates = measured((0, 0.001), (0, 0.002)).rates("a", "m", 0)
    assert rates is not None
    assert rates[0] == pytest.approx(0.0012)


def test_a_quick_answer_under_load_says_that_the_place_is_quick_without() -> None:
    assert measured((0, 0.01), (1.5, 0.002)).rates("a", "m", 0) == (0.002,) * 5


@given(st.lists(st.tuples(st.sampled_from(LOADS), st.floats(1e-6, 1), st.integers(0, 50)), min_size=1))
def test_more_load_is_never_quicker(measurements: list[tuple[float, float, int]]) -> None:
    latency, now = Latency(), 0.0
    for load, seconds, pause_s in measurements:
        now += pause_s
        latency.first_token("a", "m", seconds, TOKENS, load, now)
    rates = latency.rates("a", "m", now)
    assert rates is not None
    assert len(rates) == len(BANDS) + 1
    assert list(rates) == sorted(rates)


def test_old_measurements_count_as_none() -> None:
    latency = measured((0.3, 0.001))
    latency.finished("a", "m", 11, 0.5, 0)
    assert latency.rates("a", "m", MAX_AGE_S) is not None
    assert latency.rates("a", "m", MAX_AGE_S + 1) is None
    latency.finished("b", "m", 11, 0.1, MAX_AGE_S + 1)
    assert latency.seconds_per_token("a", "m", MAX_AGE_S + 1) != 0.05
    latency.first_token("a", "m", 5.0, TOKENS, 0.3, MAX_AGE_S + 1)
    assert latency.rates("a", "m", MAX_AGE_S + 1) == (0.005,) * 5, "not averaged with what is old"


def test_the_round_trip_and_the_queue_are_no_prefill() -> None:
    latency = Latency()
    latency.first_token("a", "m", 1.2, TOKENS, 0, 0, beside_s=0.2)
    rates = latency.rates("a", "m", 0)
    assert rates is not None
    assert rates[0] == pytest.approx(0.001)
    latency.first_token("b", "m", 1.0, TOKENS, 0, 0, beside_s=3)
    rates = latency.rates("b", "m", 0)
    assert rates is not None
    assert rates[0] == pytest.approx(0.0001), "something is always left"


def test_the_best_rate_is_the_models_lowest_of_the_last_minute() -> None:
    latency = measured((0, 0.003))
    assert latency.best_rate("m") == 0.003, "a measurement, however slow, beats a guess"
    latency.first_token("b", "m", 1.0, TOKENS, 0, 1)
    assert latency.best_rate("m") == 0.001
    latency.first_token("a", "m", 2.0, TOKENS, 0, 2 + MAX_AGE_S)
    assert latency.best_rate("m") == 0.002


def test_tokens_come_at_the_places_own_pace_else_at_the_models() -> None:
    latency = Latency()
    latency.finished("a", "m", 101, 1.0, 0)
    assert latency.seconds_per_token("a", "m", 0) == pytest.approx(0.01)
    assert 0.01 < latency.seconds_per_token("b", "m", 0) < PRIOR_SECONDS_PER_TOKEN
    assert latency.seconds_per_token("a", "other", 0) == PRIOR_SECONDS_PER_TOKEN


def test_answers_lengths_are_averaged_and_single_tokens_have_no_pace() -> None:
    latency = Latency()
    for _ in range(100):
        latency.finished("a", "m", 1, 0.0, 0)
    assert latency.output_tokens("m") == pytest.approx(1, abs=0.1)
    assert latency.seconds_per_token("a", "m", 0) == PRIOR_SECONDS_PER_TOKEN


def test_deviation_follows_the_distance_from_what_was_expected() -> None:
    latency = Latency()
    for seconds in [1.0] * 100:
        latency.first_token("a", "m", seconds, TOKENS, 0, 0)
    assert latency.deviation_s("a", "m") < 0.01
    for seconds in [0.5, 1.5] * 50:
        latency.first_token("a", "m", seconds, TOKENS, 0, 0)
    assert 0.3 < latency.deviation_s("a", "m") < 0.7
