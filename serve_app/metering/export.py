"""Handing sums on to another system of metrics."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from serve_app.metering.metrics import Kind, Metric
from serve_app.metering.sums import Labels, Sums

Recorder = Callable[[float, Labels], None]
"""(value, label values): adds to a counter, or sets a gauge."""


class Backend(Protocol):
    """Where metrics go. Of a histogram it gets what Prometheus makes of one: counters named `…_bucket` with the label
    `le`, `…_count` and `…_sum`."""

    def counter(self, metric: Metric) -> Recorder: ...
    def gauge(self, metric: Metric) -> Recorder: ...


class Export:
    """Tells a backend what it has not been told yet."""

    def __init__(self, sums: Sums, backend: Backend):
        self._sums = sums
        self._recorders = {part.name: _recorder(backend, part) for metric in sums.metrics for part in _parts(metric)}
        self._told: dict[tuple[str, Labels], float] = {}

    def flush(self) -> None:
        """Gauges are told every time: backends may forget those that they don't hear of."""
        for metric in self._sums.metrics:
            match metric.kind:
                case Kind.COUNTER:
                    for labels, total in self._sums.numbers(metric).items():
                        self._add(metric.name, labels, total)
                case Kind.GAUGE:
                    for labels, value in self._sums.numbers(metric).items():
                        self._recorders[metric.name](value, labels)
                case Kind.HISTOGRAM:
                    self._add_histogram(metric)

    def _add_histogram(self, metric: Metric) -> None:
        for labels, buckets in self._sums.buckets(metric).items():
            if self._add(f"{metric.name}_count", labels, buckets.count):
                self._add(f"{metric.name}_sum", labels, buckets.total)
                for bound, count in buckets.cumulated():
                    self._add(f"{metric.name}_bucket", (*labels, bound), count)

    def _add(self, name: str, labels: Labels, total: float) -> bool:
        more = total - self._told.get((name, labels), 0.0)
        if more > 0:
            self._recorders[name](more, labels)
            self._told[name, labels] = total
        return more > 0


def _parts(metric: Metric) -> tuple[Metric, ...]:
    if metric.kind is not Kind.HISTOGRAM:
        return (metric,)
    counter = replace(metric, kind=Kind.COUNTER, buckets=())
    return (
        replace(counter, name=f"{metric.name}_bucket", labels=(*metric.labels, "le")),
        replace(counter, name=f"{metric.name}_count"),
        replace(counter, name=f"{metric.name}_sum"),
    )


def _recorder(backend: Backend, metric: Metric) -> Recorder:
    return backend.counter(metric) if metric.kind is Kind.COUNTER else backend.gauge(metric)
