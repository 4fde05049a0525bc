"""Which replicas share which card: first fit, largest first. What a pool needs, in nodes and USD per hour."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

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


def plan(fleet: FleetSpec, site: SiteSpec, pool: PoolSpec) -> PoolPlan:
    """The pool's bounds, between `min_nodes` and `max_nodes` even if all placements peak at once."""
    placements = tuple(placement for placement in fleet.placements_at(site.name) if placement.pool == pool.name)
    least = pack((_need(p, p.autoscaling.min_replicas) for p in placements), pool.gpus, pool.cpus)
    most = pack((_need(p, p.autoscaling.max_replicas) for p in placements), pool.gpus, pool.cpus)
    nodes = (max(pool.min_nodes, least.nodes), min(max(pool.min_nodes, most.nodes), pool.max_nodes))
    return PoolPlan(pool, placements, least, most, nodes)


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


def _need(placement: PlacementSpec, replicas: int) -> Need:
    return Need(placement.model, placement.gpus, placement.cpus, replicas)


def _units(amount: float) -> int:
    return round(amount * UNIT)
