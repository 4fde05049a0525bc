"""What was counted since the process began, as plain numbers: adding to them is all that a request pays for."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import TypeVar

from serve_app.metering.metrics import Kind, Metric

Labels = tuple[str, ...]
T = TypeVar("T")


class Buckets:
    """How many values fell below each bound."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]):
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulated(self) -> list[tuple[str, int]]:
        """Per bound, `+Inf` last, how many values are no greater."""
        return list(zip([*map(str, self._bounds), "+Inf"], accumulate(self._counts), strict=True))


class Sums:
    """By metric, then by label values. For one thread."""

    def __init__(self, metrics: Sequence[Metric]):
        self.metrics = tuple(metrics)
        self._numbers = {m.name: _series(float, m) for m in metrics if m.kind is not Kind.HISTOGRAM}
        self._buckets = {m.name: _series(partial(Buckets, m.buckets), m) for m in metrics if m.kind is Kind.HISTOGRAM}

    def numbers(self, metric: Metric) -> defaultdict[Labels, float]:
        """Of a counter or a gauge; a metric without labels has its only one under ()."""
        return self._numbers[metric.name]

    def buckets(self, metric: Metric) -> defaultdict[Labels, Buckets]:
        """Of a histogram."""
        return self._buckets[metric.name]


def _series(new: Callable[[], T], metric: Metric) -> defaultdict[Labels, T]:
    """The only series that a metric without labels can have is there from the start."""
    return defaultdict(new, {} if metric.labels else {(): new()})
