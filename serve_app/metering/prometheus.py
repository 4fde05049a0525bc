"""Our own `/metrics`: of this replica only."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from serve_app.metering.metrics import Kind, Metric
from serve_app.metering.sums import Sums


class Prometheus(Collector):
    """Renders sums as they are at that moment."""

    def __init__(self, sums: Sums):
        self._sums = sums
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """For the registry."""
        return map(self._family, self._sums.metrics)

    def _family(self, metric: Metric) -> Family:
        if metric.kind is Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, buckets in self._sums.buckets(metric).items():
                histogram.add_metric(labels, buckets.cumulated(), buckets.total)
            return histogram
        kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for labels, value in self._sums.numbers(metric).items():
            family.add_metric(labels, value)
        return family
