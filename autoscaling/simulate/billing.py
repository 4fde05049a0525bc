"""What replicas cost: GPU-hours of each, and the dollars of the nodes that they are packed on."""

from collections import defaultdict
from functools import cache

from clusters.packing import Need, pack
from clusters.spec import FleetSpec, PlacementSpec, PoolSpec

HOUR_S = 3600.0


class Meter:
    """Replicas are taken to be packed anew whenever their number changes: the least that the nodes can cost."""

    def __init__(self, fleet: FleetSpec):
        self._pools = {(site.name, pool.name): pool for site in fleet.sites for pool in site.pools}
        self._counts: dict[tuple[str, str], dict[str, int]] = {pool: {} for pool in self._pools}
        self._placements = {(placement.site, placement.model): placement for placement in fleet.placements}
        self._since = dict.fromkeys(self._pools, 0.0)
        self._usd: dict[tuple[str, str], float] = dict.fromkeys(self._pools, 0.0)
        self._gpu_s: dict[tuple[str, str], float] = defaultdict(float)
        """By site and model."""

    def nodes(self, placement: PlacementSpec, pool: str, more: int = 0) -> int:
        """Of one of the placement's pools, with so many more of its replicas."""
        where = (placement.site, pool)
        counts = {**self._counts[where]}
        counts[placement.model] = counts.get(placement.model, 0) + more
        return _nodes(self._pools[where], self._as_key(where, counts))

    def users(self, site: str, pool: str) -> tuple[frozenset[str], ...]:
        """Models with replicas on it, of each node that has any."""
        spec = self._pools[site, pool]
        return _users(self._as_key((site, pool), self._counts[site, pool]), spec.gpus, spec.cpus)

    def change(self, placement: PlacementSpec, pool: str, by: int, now: float) -> None:
        """So many replicas more, or fewer, are paid from now on."""
        where = (placement.site, pool)
        self._settle(where, now)
        counts = self._counts[where]
        counts[placement.model] = counts.get(placement.model, 0) + by

    def close(self, now: float) -> None:
        """Settle everything up to now."""
        for where in self._pools:
            self._settle(where, now)

    def usd(self, site: str) -> float:
        return sum(usd for (name, _), usd in self._usd.items() if name == site)

    def gpu_hours(self, site: str) -> float:
        return sum(seconds for (name, _), seconds in self._gpu_s.items() if name == site) / HOUR_S

    def _settle(self, where: tuple[str, str], now: float) -> None:
        seconds, self._since[where] = now - self._since[where], now
        counts = self._counts[where]
        pool = self._pools[where]
        self._usd[where] += seconds / HOUR_S * pool.usd_per_hour * _nodes(pool, self._as_key(where, counts))
        for model, count in counts.items():
            gpus = self._placements[where[0], model].gpus
            self._gpu_s[where[0], model] += seconds * gpus * count

    def _as_key(self, where: tuple[str, str], counts: dict[str, int]) -> "_Key":
        return tuple(
            (model, self._placements[where[0], model].gpus, self._placements[where[0], model].cpus, count)
            for model, count in sorted(counts.items())
        )


_Key = tuple[tuple[str, float, float, int], ...]


def _nodes(pool: PoolSpec, replicas: _Key) -> int:
    return max(pool.min_nodes, len(_users(replicas, pool.gpus, pool.cpus)))


@cache
def _users(replicas: _Key, gpus: int, cpus: int) -> tuple[frozenset[str], ...]:
    packing = pack((Need(*each) for each in replicas), gpus, cpus)
    return tuple(frozenset(seat.model for seat in packing.seats if seat.node == node) for node in range(packing.nodes))
