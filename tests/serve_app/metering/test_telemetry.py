"""Metrics say what was counted, on our own page and through a backend."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from serve_app.metering.export import Recorder
from serve_app.metering.metrics import METRICS, SECONDS, Metric
from serve_app.metering.prometheus import Prometheus
from serve_app.metering.record import Outcome
from serve_app.metering.sums import Buckets, Labels
from serve_app.telemetry import MAX_FAILURES, Telemetry
from tests.serve_app.metering.records import record

Samples = dict[tuple[str, Labels], float]


def page(telemetry: Telemetry) -> Samples:
    """Our own page, by name and by label values in the order of their names."""
    text = Prometheus(telemetry.sums).render().decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Ledger:
    """A backend that keeps books."""

    def __init__(self) -> None:
        self.samples: Samples = defaultdict(float)
        self.calls = 0

    def counter(self, metric: Metric) -> Recorder:
        def add(value: float, labels: Labels) -> None:
            assert value > 0
            self.samples[self._row(metric, labels)] += value

        return add

    def gauge(self, metric: Metric) -> Recorder:
        return lambda value, labels: self.samples.__setitem__(self._row(metric, labels), value)

    def _row(self, metric: Metric, labels: Labels) -> tuple[str, Labels]:
        self.calls += 1
        return metric.name, tuple(value for _, value in sorted(zip(metric.labels, labels, strict=True)))


def test_an_answered_request_is_counted_under_each_of_its_labels() -> None:
    telemetry = Telemetry()
    telemetry.answered(record(attempts=2))
    telemetry.answered(record(site="west", outcome=Outcome.CUT, usd=0.5))
    told = page(telemetry)
    assert told["rayfleet_requests_total", ("chat", "ok", "east")] == 1
    assert told["rayfleet_requests_total", ("chat", "cut", "west")] == 1
    assert told["rayfleet_attempts_total", ("chat",)] == 3
    assert told["rayfleet_tokens_total", ("input", "chat", "east", "acme")] == 100
    assert told["rayfleet_tokens_total", ("output", "chat", "west", "acme")] == 20
    assert told["rayfleet_tokens_total", ("cached", "chat", "east", "acme")] == 64
    assert told["rayfleet_usd_total", ("spot", "chat", "east", "acme")] == 0.25
    assert told["rayfleet_first_byte_seconds_sum", ("chat", "east")] == 0.07
    assert told["rayfleet_first_byte_seconds_bucket", ("0.05", "chat", "east")] == 0
    assert told["rayfleet_first_byte_seconds_bucket", ("0.1", "chat", "east")] == 1
    assert told["rayfleet_request_seconds_count", ("chat", "east")] == 1
    assert told["rayfleet_seconds_per_output_token_bucket", ("0.005", "chat", "east")] == 1


def test_a_request_that_got_no_answer_has_no_time_to_its_first_byte() -> None:
    telemetry = Telemetry()
    telemetry.answered(record(outcome=Outcome.FAILED, ttft_s=None, tpot_s=None, tokens_in=0, tokens_out=0, usd=0.0))
    told = page(telemetry)
    assert told["rayfleet_requests_total", ("chat", "failed", "east")] == 1
    assert {name for name, labels in told if "east" in labels and told[name, labels]} == {
        "rayfleet_requests_total",
        "rayfleet_request_seconds_bucket",
        "rayfleet_request_seconds_count",
        "rayfleet_request_seconds_sum",
    }


def test_everything_else_that_is_told() -> None:
    telemetry = Telemetry()
    telemetry.attempt_failed("east", "status 503")
    telemetry.retry_denied()
    telemetry.hedged("won")
    telemetry.continued("token_ids", "ok")
    telemetry.held(3.0)
    telemetry.log_dropped(7)
    telemetry.set_held(2)
    telemetry.set_connections(5)
    telemetry.set_leases("chat", "east", 4)
    telemetry.set_ejected("chat", "east", True)
    telemetry.set_site("east", True, 0.5)
    telemetry.set_site("west", False, None)
    told = page(telemetry)
    assert told["rayfleet_failed_attempts_total", ("east", "status 503")[::-1]] == 1
    assert told["rayfleet_retries_denied_total", ()] == 1
    assert told["rayfleet_hedges_total", ("won",)] == 1
    assert told["rayfleet_continuations_total", ("token_ids", "ok")] == 1
    assert told["rayfleet_hold_seconds_bucket", ("5.0",)] == 1
    assert told["rayfleet_hold_seconds_bucket", ("2.5",)] == 0
    assert told["rayfleet_log_dropped_total", ()] == 7
    assert told["rayfleet_held_requests", ()] == 2
    assert told["rayfleet_open_connections", ()] == 5
    assert told["rayfleet_leases", ("chat", "east")] == 4
    assert told["rayfleet_place_ejected", ("chat", "east")] == 1
    assert (told["rayfleet_site_healthy", ("east",)], told["rayfleet_site_healthy", ("west",)]) == (1, 0)
    assert ("rayfleet_site_state_age_seconds", ("west",)) not in told


def test_a_backend_gets_the_same_numbers_in_as_many_flushes_as_there_may_be() -> None:
    ledger = Ledger()
    telemetry = Telemetry(ledger)
    for n in range(50):
        telemetry.answered(record(site=("east", "west")[n % 2], ttft_s=n / 40, duration_s=n / 10, usd=0.125))
        telemetry.set_leases("chat", "east", n)
        telemetry.held(float(n))
        if n % 7 == 0:
            telemetry.flush()
    telemetry.flush()
    told = {row: value for row, value in page(telemetry).items() if value}
    assert {row: value for row, value in ledger.samples.items() if value} == pytest.approx(told)


def test_a_flush_with_nothing_new_tells_only_gauges() -> None:
    ledger = Ledger()
    telemetry = Telemetry(ledger)
    telemetry.answered(record())
    telemetry.set_leases("chat", "east", 1)
    telemetry.flush()
    ledger.calls = 0
    telemetry.flush()
    assert ledger.calls == 3  # leases, and the two gauges without labels


def test_reasons_that_never_end_share_a_series() -> None:
    telemetry = Telemetry()
    for n in range(MAX_FAILURES + 10):
        telemetry.attempt_failed("east", f"reason {n}")
    telemetry.attempt_failed("east", "reason 3")
    told = page(telemetry)
    assert told["rayfleet_failed_attempts_total", ("other", "east")] == 10
    assert told["rayfleet_failed_attempts_total", ("reason 3", "east")] == 2


def test_each_metric_has_a_name_of_its_own() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.name.startswith("rayfleet_") for metric in METRICS)


@given(st.lists(st.floats(0, 200) | st.sampled_from(SECONDS)))
def test_buckets_count_as_the_reference_does(values: list[float]) -> None:
    registry = CollectorRegistry()
    reference = Histogram("reference", "", registry=registry, buckets=SECONDS)
    buckets = Buckets(SECONDS)
    for value in values:
        reference.observe(value)
        buckets.observe(value)
    for bound, count in buckets.cumulated():
        assert registry.get_sample_value("reference_bucket", {"le": bound}) == count
    assert registry.get_sample_value("reference_sum") == pytest.approx(buckets.total)
    assert buckets.count == len(values)
