"""Telemetry backend that hands metrics to Ray: its dashboard and its Prometheus endpoint show them, of all replicas."""

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from serve_app.telemetry import Kind, Metric, Recorder


class RayMetrics:
    """To be used inside a Ray actor."""

    def register(self, metric: Metric) -> Recorder:
        match metric.kind:
            case Kind.COUNTER:
                counter = Counter(metric.name, metric.help, metric.labels)
                return lambda value, labels: counter.inc(value, _tags(metric, labels)) if value else None
            case Kind.GAUGE:
                gauge = Gauge(metric.name, metric.help, metric.labels)
                return lambda value, labels: gauge.set(value, _tags(metric, labels))
            case Kind.HISTOGRAM:
                histogram = Histogram(metric.name, metric.help, list(metric.buckets), metric.labels)
                return lambda value, labels: histogram.observe(value, _tags(metric, labels))


def _tags(metric: Metric, labels: Sequence[str]) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
