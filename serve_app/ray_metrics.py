"""Backend that hands metrics to Ray: its dashboard and its Prometheus endpoint show them, of all replicas.

Ray's own histograms take values one by one, at microseconds each, and replay them at the middle of their buckets.
Counters of buckets, which telemetry hands over, cost a few calls per second and stay exact.
"""

from ray.util.metrics import Counter, Gauge

from serve_app.metering.export import Recorder
from serve_app.metering.metrics import Metric
from serve_app.metering.sums import Labels


class RayMetrics:
    """To be used inside a Ray actor."""

    def counter(self, metric: Metric) -> Recorder:
        counter = Counter(metric.name, metric.help, metric.labels)
        return lambda value, labels: counter.inc(value, _tags(metric, labels))

    def gauge(self, metric: Metric) -> Recorder:
        gauge = Gauge(metric.name, metric.help, metric.labels)
        return lambda value, labels: gauge.set(value, _tags(metric, labels))


def _tags(metric: Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
