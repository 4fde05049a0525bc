"""Which replicas share which card: first fit, largest first. What a pool needs, in nodes and USD per hour."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from clusters.mix import Room, split
from clusters.spec import FleetSpec, PlacementSpec, PoolSpec, SiteSpec

UNIT = 10_000  # Ray counts resources in ten-thousandths, and so do we: floats would not add up


@dataclass(frozen=True)
class Need:
    """Replicas of one placement, each of the same size."""

    model: str
    gpus: float
    cpus: float
    replicas: int


@dataclass(frozen=True)
class Seat:
    """Where one replica goes. A fraction takes a part of one card, more takes whole cards of one node."""

    model: str
    gpus: float
    node: int
    cards: tuple[int, ...]


@dataclass(frozen=True)
class Packing:
    seats: tuple[Seat, ...]
    nodes: int


@dataclass(frozen=True)
class PoolPlan:
    """A pool with every placement at its least and at its most replicas."""

    pool: PoolSpec
    placements: tuple[PlacementSpec, ...]
    least: Packing
    most: Packing
    nodes: tuple[int, int]

    @property
    def usd_per_hour(self) -> tuple[float, float]:
        return self.nodes[0] * self.pool.usd_per_hour, self.nodes[1] * self.pool.usd_per_hour


def plan(fleet: FleetSpec, site: SiteSpec, pool: PoolSpec, spot: bool = True) -> PoolPlan:
    """The pool's bounds, between `min_nodes` and `max_nodes` even if all placements peak at once.

    Where `spot` is False, as they are when no placement gets the spot nodes that it has beside its own pool's.
    """

    def needs(bound: str) -> list[Need]:
        counts = (_by_pool(site, each, getattr(each.autoscaling, bound), spot).get(pool.name, 0) for each in placements)
        return [_need(placement, replicas) for placement, replicas in zip(placements, counts, strict=True)]

    placements = tuple(placement for placement in fleet.placements_at(site.name) if pool.name in placement.pools)
    least = pack(needs("min_replicas"), pool.gpus, pool.cpus)
    most = pack(needs("max_replicas"), pool.gpus, pool.cpus)
    nodes = (max(pool.min_nodes, least.nodes), min(max(pool.min_nodes, most.nodes), pool.max_nodes))
    return PoolPlan(pool, placements, least, most, nodes)


def usd_per_node_hour(site: SiteSpec, placement: PlacementSpec) -> float:
    """What a node costs that is all this placement's: of several pools the mean, as with most replicas."""
    replicas = _by_pool(site, placement, placement.autoscaling.max_replicas) if placement.spot else {placement.pool: 1}
    usd = sum(site.pool(pool).usd_per_hour * count for pool, count in replicas.items())
    return usd / sum(replicas.values())


def alone(pools: Sequence[PoolSpec], placement: PlacementSpec, replicas: int) -> Packing:
    """The placement without neighbours, on nodes that are as small as those of the smallest pool."""
    return pack([_need(placement, replicas)], min(pool.gpus for pool in pools), min(pool.cpus for pool in pools))


def pack(needs: Iterable[Need], gpus: int, cpus: float) -> Packing:
    """Seats on as many nodes as it takes, deterministic. Raises ValueError where one replica fits on none."""
    nodes: list[_Node] = []
    seats: list[Seat] = []
    for need in sorted(needs, key=lambda need: (-need.gpus, -need.cpus, need.model)):
        if not _Node(gpus, cpus).has_room(need):
            raise ValueError(f"a node with {gpus} GPUs and {cpus:g} CPUs has no room for {need}")
        node = 0  # nodes too full for one replica stay too full for its twins
        for _ in range(need.replicas):
            while node == len(nodes) or not nodes[node].has_room(need):
                if node == len(nodes):
                    nodes.append(_Node(gpus, cpus))
                else:
                    node += 1
            seats.append(Seat(need.model, need.gpus, node, nodes[node].take(need)))
    return Packing(tuple(seats), len(nodes))


def shared_cards(seats: Sequence[Seat]) -> dict[tuple[int, int], tuple[Seat, ...]]:
    """Per (node, card) the replicas on it, in order."""
    cards = sorted({(seat.node, card) for seat in seats for card in seat.cards})
    return {(node, card): tuple(s for s in seats if s.node == node and card in s.cards) for node, card in cards}


class _Node:
    """What is left of one node."""

    def __init__(self, gpus: int, cpus: float) -> None:
        self.cards = [UNIT] * gpus
        self.cpus = _units(cpus)

    def has_room(self, need: Need) -> bool:
        return self.cpus >= _units(need.cpus) and self._cards(need) is not None

    def take(self, need: Need) -> tuple[int, ...]:
        """The cards that the replica gets. There must be room."""
        cards = self._cards(need) or ()
        for card in cards:
            self.cards[card] -= min(_units(need.gpus), UNIT)
        self.cpus -= _units(need.cpus)
        return cards

    def _cards(self, need: Need) -> tuple[int, ...] | None:
        count, share = ceil(need.gpus), min(_units(need.gpus), UNIT)
        free = [card for card, left in enumerate(self.cards) if left >= share]
        return tuple(free[:count]) if len(free) >= count else None


def _by_pool(site: SiteSpec, placement: PlacementSpec, replicas: int, spot: bool = True) -> Mapping[str, int]:
    """Its replicas, a node's worth at a time."""
    if placement.spot is None or not spot:
        return {placement.pool: replicas}
    pools = [site.pool(name) for name in placement.pools]
    own, *others = (Room(pool.name, pool.usd_per_hour, pool.max_nodes) for pool in pools)
    seats = Counter(seat.node for seat in alone(pools, placement, replicas).seats)
    nodes = split(len(seats), placement.spot.min_on_demand_share, own, others)
    counts = dict.fromkeys(placement.pools, 0)
    for pool, node in zip(Counter(nodes).elements(), sorted(seats), strict=False):
        counts[pool] += seats[node]
    counts[placement.pool] += replicas - sum(counts.values())  # for which no pool has room
    return counts


def _need(placement: PlacementSpec, replicas: int) -> Need:
    return Need(placement.model, placement.gpus, placement.cpus, replicas)


def _units(amount: float) -> int:
    return round(amount * UNIT)
