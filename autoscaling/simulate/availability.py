"""When a spot pool has nodes, and when a site is out: intervals, read from traces or given."""

import json
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoscaling.simulate.errors import BadTrace


@dataclass(frozen=True)
class Availability:
    """Of a spot pool. `changes` are the times, in seconds, at which it goes from one to the other, in order."""

    changes: tuple[float, ...] = ()
    at_first: bool = True
    notice_s: float = 120.0
    """Between the provider's notice and the loss: AWS gives 120 s, GCP and Azure 30 s."""
    drain_s: float = math.inf
    """Before the loss, for which replicas take no new work; at most since the notice."""

    def at(self, now: float) -> bool:
        return self.at_first ^ bool(bisect_right(self.changes, now) % 2)

    @property
    def losses(self) -> tuple[tuple[float, float], ...]:
        """When each is noticed, and when it comes. What was there for a shorter time is noticed as it comes."""
        began = (0.0, *self.changes)
        return tuple(
            (max(began[n], change - self.notice_s), change)
            for n, change in enumerate(self.changes)
            if (n % 2 == 0) == self.at_first
        )

    def from_second(self, began: float) -> "Availability":
        """The same, with the clock set to 0 there."""
        later = tuple(change - began for change in self.changes if change > began)
        return replace(self, changes=later, at_first=self.at(began))


@dataclass(frozen=True)
class Outage:
    """The site does not answer from `began` until `ended`, in seconds. Its replicas stay, and so does their price."""

    site: str
    began: float
    ended: float


def read_availability(path: Path, notice_s: float = 120.0) -> Availability:
    """SkyPilot's format: `{"metadata": {"gap_seconds": 195}, "data": [0, 1, ...]}`. Raises BadTrace."""
    try:
        told = json.loads(path.read_bytes())
    except OSError as error:
        raise BadTrace(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadTrace(f"{path} is no JSON: {error}") from error
    gap_s = _field(path, told, "metadata", "gap_seconds")
    data = _field(path, told, "data")
    if isinstance(gap_s, bool) or not isinstance(gap_s, int | float) or gap_s <= 0:
        raise BadTrace(f"{path}, field metadata.gap_seconds: {gap_s!r} should be a number above 0")
    if not isinstance(data, list) or not data:
        raise BadTrace(f"{path}, field data: should be a list that is not empty")
    for n, point in enumerate(data):
        if point not in (0, 1):
            raise BadTrace(f"{path}, field data[{n}]: {point!r} should be 0 or 1")
    changes = tuple(n * float(gap_s) for n in range(1, len(data)) if data[n] != data[n - 1])
    return Availability(changes, bool(data[0]), notice_s)


def _field(path: Path, told: Any, *names: str) -> Any:
    for name in names:
        if not isinstance(told, dict) or name not in told:
            raise BadTrace(f"{path}, field {'.'.join(names)}: missing")
        told = told[name]
    return told
