"""What one more replica of a placement costs, and how many its pool can hold."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from clusters.packing import Need, pack, usd_per_node_hour
from clusters.spec import FleetSpec, Market, PlacementSpec, PoolSpec

CHEAPEST_FIRST = (Market.RESERVED, Market.SPOT, Market.ON_DEMAND)

Where = tuple[str, str]
"""A site and a model."""


@dataclass(frozen=True, slots=True)
class Supply:
    """Replicas that a site can have of a model, each for `requests` at once."""

    site: str
    market: Market
    requests: float
    paid: int
    """So many fit on the nodes that run anyway."""
    most: int
    """So many fit on the nodes that there may be, within `max_replicas`."""
    usd_per_hour: float
    """Of a replica that is not paid for: its share of a node."""
    start_up_s: float
    hold_s: float
    """A replica stays for at least so long."""

    def price(self, number: int) -> float:
        """USD per hour of the replica with that number, counted from 1."""
        return 0.0 if number <= self.paid else self.usd_per_hour

    def cost(self, number: int, waiting: float, usd_per_late_second: float) -> float:
        """USD: the replica for as long as it is held, and the lateness of the requests that wait for it to start."""
        held = self.price(number) * (self.start_up_s + self.hold_s) / 3600
        return held + usd_per_late_second * waiting * self.start_up_s

    def preference(self, number: int, waiting: float, usd_per_late_second: float) -> tuple[float, float, int, str]:
        """The lowest goes first."""
        cost = self.cost(number, waiting, usd_per_late_second)
        return cost, self.price(number), CHEAPEST_FIRST.index(self.market), self.site


def supply(fleet: FleetSpec, placement: PlacementSpec, counts: Mapping[Where, int]) -> Supply:
    """`counts` are replicas of all placements: of those that share the pool, they take room."""
    site, scaling = fleet.site(placement.site), placement.autoscaling
    pools = [site.pool(name) for name in placement.pools]
    own = Need(placement.model, placement.gpus, placement.cpus, scaling.max_replicas)
    beside = {pool.name: _beside(fleet, placement, pool, counts) for pool in pools}
    paid = sum(_room(beside[pool.name], own, pool.gpus, pool.cpus, pool.min_nodes) for pool in pools)
    most = sum(_room(beside[pool.name], own, pool.gpus, pool.cpus, pool.max_nodes) for pool in pools)
    per_node = min(_room((), own, pool.gpus, pool.cpus, 1) for pool in pools)
    return Supply(
        site=placement.site,
        market=Market.SPOT if placement.spot else pools[0].market,
        requests=scaling.target_queue_depth,
        paid=min(paid, scaling.max_replicas),
        most=min(most, scaling.max_replicas),
        usd_per_hour=usd_per_node_hour(site, placement) / max(per_node, 1),
        start_up_s=scaling.start_up_s,
        hold_s=scaling.scale_down_delay_s,
    )


def _beside(
    fleet: FleetSpec, placement: PlacementSpec, pool: PoolSpec, counts: Mapping[Where, int]
) -> tuple[Need, ...]:
    """What else may be on the pool's nodes, all of it reckoned to be there."""
    return tuple(
        Need(other.model, other.gpus, other.cpus, counts.get((other.site, other.model), 0))
        for other in fleet.placements_at(placement.site)
        if pool.name in other.pools and other.model != placement.model
    )


@lru_cache(maxsize=4096)
def _room(beside: tuple[Need, ...], own: Need, gpus: int, cpus: float, nodes: int) -> int:
    """How many replicas of `own`, up to its number, fit on so many nodes beside the others."""

    def needed(replicas: int) -> int:
        return pack((*beside, Need(own.model, own.gpus, own.cpus, replicas)), gpus, cpus).nodes

    return max(0, bisect_right(range(own.replicas + 1), nodes, key=needed) - 1)
