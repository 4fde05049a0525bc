"""The router's own requests in flight, per site and model."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

Place = tuple[str, str]
"""A site and a model."""


class Leases:
    """Each lease remembers the reading of the site on which its choice rested (`read_at`), so that requests which
    that reading could not yet count are known without a scan."""

    def __init__(self) -> None:
        self._open: Counter[Place] = Counter()
        self._since: Counter[tuple[Place, float]] = Counter()

    @contextmanager
    def take(self, site: str, model: str, read_at: float) -> Iterator[None]:
        place = (site, model)
        self._open[place] += 1
        self._since[place, read_at] += 1
        try:
            yield
        finally:
            self._open[place] -= 1
            self._since[place, read_at] -= 1
            if not self._since[place, read_at]:
                del self._since[place, read_at]

    def in_flight(self, site: str, model: str) -> int:
        return self._open[site, model]

    def since(self, site: str, model: str, read_at: float) -> int:
        """Open leases that were chosen on the reading of that moment."""
        return self._since[(site, model), read_at]

    def open(self) -> Mapping[Place, int]:
        """Every place that ever had a lease, and how many are open there."""
        return dict(self._open)
