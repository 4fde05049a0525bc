"""The router's own requests in flight, per place."""

from collections.abc import Mapping

Place = tuple[str, str]
"""A site or hosted target, and a model."""


class _Count:
    """Of one place."""

    __slots__ = ("at_reading", "open", "read_at")

    def __init__(self) -> None:
        self.open = 0
        self.read_at: float | None = None
        self.at_reading = 0
        """Leases that were open when the reading of `read_at` was new."""

    def since(self, read_at: float) -> int:
        if self.read_at != read_at:
            self.read_at, self.at_reading = read_at, self.open
        return self.open - self.at_reading


class Leases:
    """Counts per place, and how they moved since the site's latest reading, which knows nothing of that yet."""

    def __init__(self) -> None:
        self._counts: dict[Place, _Count] = {}
        self.changed: set[Place] = set()
        """Places whose counts moved since the router, which empties this, last looked."""

    def take(self, site: str, model: str) -> None:
        self._move((site, model), 1)

    def release(self, site: str, model: str) -> None:
        """Exactly once for each `take`."""
        self._move((site, model), -1)

    def in_flight(self, site: str, model: str) -> int:
        count = self._counts.get((site, model))
        return 0 if count is None else count.open

    def since(self, site: str, model: str, read_at: float) -> int:
        """Leases taken less leases released since that reading, which must be asked for while it is new."""
        return self._count((site, model)).since(read_at)

    def requests(self, place: Place, reported: int | None, read_at: float) -> int:
        """Requests there now. The site's own count, as `reported` at `read_at`, knows other ingress replicas' requests,
        ours knows the latest: each fills the other's gap."""
        count = self._counts.get(place) or self._count(place)
        if reported is None:
            return count.open
        requests = reported + count.since(read_at)
        return requests if requests > count.open else count.open

    def open(self) -> Mapping[Place, int]:
        """Every place that was ever asked for, and how many leases are open there."""
        return {place: count.open for place, count in self._counts.items()}

    def _move(self, place: Place, by: int) -> None:
        self._count(place).open += by
        self.changed.add(place)

    def _count(self, place: Place) -> _Count:
        count = self._counts.get(place)
        if count is None:
            count = self._counts[place] = _Count()
        return count
