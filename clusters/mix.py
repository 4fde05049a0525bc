"""How many of a placement's nodes are on demand and how many are spot, and from which pools. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from pydantic import Field

from clusters.fields import Name, Spec


class SpotSpec(Spec):
    """Pools of the spot market that a placement uses beside its own."""

    pools: tuple[Name, ...] = Field(min_length=1, description="of the same site; nodes are spread evenly over them")
    min_on_demand_share: float = Field(
        0, ge=0, le=1, description="of the placement's nodes, those of its own pool at least, rounded up"
    )
    avoid_s: float = Field(
        300, ge=0, le=600, description="seconds without new nodes from a pool that took one back, or had none to give"
    )
    launch_s: float = Field(
        420, gt=0, le=7200, description="seconds after which a pool whose nodes don't come has none to give"
    )


@dataclass(frozen=True, slots=True)
class Room:
    """One pool's nodes for one placement."""

    pool: str
    usd_per_hour: float
    most: int
    """That there can be, busy ones included."""
    busy: int = 0
    """Those with a replica: it stays where it is."""
    avoided: bool = False
    """New nodes only where no other pool has any."""


def split(nodes: int, least_share: float, own: Room, spot: Sequence[Room]) -> dict[str, int]:
    """Nodes by pool: the share of the own pool, the rest evenly over spot, and from the own pool what spot lacks.

    Busy nodes stay as long as there are not too many of them. The share is kept even if enough busy ones are spot: what
    is to survive the loss of all of spot has to be somewhere. Where all pools are full, there are fewer than `nodes`.
    """
    least = 0 if own.avoided else on_demand(nodes, least_share)
    counts = dict.fromkeys((own.pool, *(room.pool for room in spot)), 0)
    counts[own.pool] = min(max(least, min(own.busy, nodes)), own.most)
    stages = (
        [(room, room.busy) for room in spot],
        [(room, room.most) for room in spot if not room.avoided],
        [(own, own.most)] if not own.avoided else [],
        [(room, room.most) for room in (*spot, own)],
    )
    for stage in stages:
        _fill(counts, nodes, stage)
    return counts


def on_demand(nodes: int, least_share: float) -> int:
    """Nodes that the share comes to, rounded up."""
    return ceil(least_share * nodes - 1e-9)


def _fill(counts: dict[str, int], nodes: int, limits: Sequence[tuple[Room, int]]) -> None:
    """One by one to whoever has least, the cheapest of these, until there are enough or all limits are reached."""
    while sum(counts.values()) < nodes:
        below = [room for room, limit in limits if counts[room.pool] < limit]
        if not below:
            return
        counts[min(below, key=lambda room: (counts[room.pool], room.usd_per_hour, room.pool)).pool] += 1
