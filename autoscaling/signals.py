"""What is known of a placement's load at one moment. None means that nothing is known: not zero."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """What one replica last said of itself, at `at` seconds since the epoch."""

    at: float
    running: float
    waiting: float
    kv_usage: float | None = None
    gpu_utilisation: float | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """A whole placement at `at` seconds since the epoch.

    `running`, `waiting` and `held` are requests: in the engines' batches, in the engines' queues, and held at the
    ingress for this placement. `kv_usage` and `gpu_utilisation` are means over the reporting replicas, 0 to 1.
    `ready` replicas answer, and `reporting` of them have told their load lately.
    """

    at: float
    running: float | None = None
    waiting: float | None = None
    held: float | None = None
    kv_usage: float | None = None
    gpu_utilisation: float | None = None
    ready: int = 0
    reporting: int = 0

    @property
    def load(self) -> float | None:
        """Requests in all. An ingress that says nothing holds back no judgement of what the engines say."""
        held = known(self.held)
        if self.ready == 0:
            return held
        running, waiting = known(self.running), known(self.waiting)
        return None if running is None or waiting is None else running + waiting + (held or 0.0)

    @property
    def silent(self) -> int:
        """Replicas that are ready and have not told their load."""
        return max(0, self.ready - self.reporting)

    @property
    def kv_used(self) -> float | None:
        """KV caches in use, in caches of one replica."""
        return self._summed(self.kv_usage)

    @property
    def busy(self) -> float | None:
        """GPUs busy, in replicas."""
        return self._summed(self.gpu_utilisation)

    def _summed(self, share: float | None) -> float | None:
        share = known(share)
        return None if share is None or self.reporting == 0 else min(share, 1.0) * self.reporting


def known(value: float | None) -> float | None:
    """NaN, infinite and negative readings are no data."""
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def combine(readings: Iterable[Reading], held: float | None, ready: int, now: float, max_age_s: float) -> Signal:
    """Sums what replicas said within the last `max_age_s` seconds; what comes from the future counts as old."""
    fresh = [
        reading
        for reading in readings
        if abs(now - reading.at) <= max_age_s and None not in (known(reading.running), known(reading.waiting))
    ]
    return Signal(
        at=now,
        running=sum(reading.running for reading in fresh) if fresh else None,
        waiting=sum(reading.waiting for reading in fresh) if fresh else None,
        held=held,
        kv_usage=_mean(reading.kv_usage for reading in fresh),
        gpu_utilisation=_mean(reading.gpu_utilisation for reading in fresh),
        ready=max(ready, len(fresh)),
        reporting=len(fresh),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    said = [value for value in map(known, values) if value is not None]
    return sum(said) / len(said) if said else None
