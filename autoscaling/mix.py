"""Which nodes a site asks for, so that placements over several pools have their mix of on-demand and spot. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from clusters.mix import Room, SpotSpec, split
from clusters.spec import PoolSpec
from clusters.state import NodeNotice

LONGEST_LOOK_S = 10.0
"""Counted between two looks, which are far more frequent: beyond it, the clock was set or nobody looked."""


@dataclass(frozen=True, slots=True)
class Node:
    """One that lives. Without `models`, which have replicas on it, it is idle. What is leaving counts for nothing."""

    pool: str
    models: frozenset[str] = frozenset()
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Want:
    """What a placement needs, in nodes, and the pools that it may have them from, its own first."""

    model: str
    nodes: int
    spot: SpotSpec
    pools: tuple[PoolSpec, ...]


@dataclass(frozen=True, slots=True)
class News:
    """Of the provider: nodes that it takes back, and when it last had none of a pool, in seconds since the epoch."""

    notices: Sequence[NodeNotice] = ()
    refused: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the look `at` that time, by pool: nodes that were `asked` for and nodes `there`; seconds for which some are
    `awaited` and none has come; and when they `failed` to come. Times are in seconds since the epoch."""

    at: float = 0.0
    asked: Mapping[str, int] = field(default_factory=dict)
    there: Mapping[str, int] = field(default_factory=dict)
    awaited: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mix:
    """`nodes` to ask for, in pools that lack some, by pool and with their busy ones; `reasons` by model."""

    nodes: Mapping[str, int]
    reasons: Mapping[str, str]
    memory: Memory


def decide(wants: Sequence[Want], nodes: Sequence[Node], news: News, memory: Memory, now: float) -> Mix:
    """Replicas don't move, so busy nodes stay, and only what is missing is shared out."""
    memory = _remembered(wants, nodes, news.refused, memory, now)
    staying = [node for node in nodes if not node.leaving]
    # What leaves still counts against the pool's limit.
    taken = Counter(node.pool for node in nodes if node.models or node.leaving)
    more: Counter[str] = Counter()
    reasons = {}
    for want in wants:
        avoided = _avoided(want, nodes, news.notices, memory, now)
        busy = Counter(node.pool for node in staying if want.model in node.models)
        rooms = [
            Room(
                pool.name,
                pool.usd_per_hour,
                most=max(busy[pool.name], busy[pool.name] + pool.max_nodes - taken[pool.name] - more[pool.name]),
                busy=busy[pool.name],
                avoided=pool.name in avoided,
            )
            for pool in want.pools
        ]
        counts = split(want.nodes, want.spot.min_on_demand_share, rooms[0], rooms[1:])
        more.update({pool: max(0, count - busy[pool]) for pool, count in counts.items()})
        reasons[want.model] = _reason(want, counts, avoided)
    # To Ray all nodes of a pool are alike: it finds what is asked for in busy ones too, so these are added to what is
    # missing. Where nothing is, nothing is asked for: it might keep an idle node in place of a busy one, for ever.
    held = Counter(node.pool for node in staying if node.models)
    wanted = {pool: held[pool] + count for pool, count in sorted(more.items()) if count}
    return Mix(wanted, reasons, replace(memory, asked=wanted))


def _remembered(
    wants: Sequence[Want], nodes: Sequence[Node], refused: Mapping[str, float], memory: Memory, now: float
) -> Memory:
    """Who lacks nodes that were asked for, and for how long none has come; after `launch_s` the pool has failed, and at
    once where the provider says so."""
    there = Counter(node.pool for node in nodes if not node.leaving)
    passed_s = min(max(0.0, now - memory.at), LONGEST_LOOK_S)
    waited = {
        pool: waited_s + passed_s
        for pool, waited_s in memory.awaited.items()
        if there[pool] <= memory.there.get(pool, 0)  # one that came shows that the pool has some to give
    }
    awaited = {pool: waited.get(pool, 0.0) for pool, count in memory.asked.items() if there[pool] < count}
    patience = {pool.name: want.spot.launch_s for want in wants for pool in want.pools}
    failed = {pool: at for pool, at in refused.items() if at > memory.failed.get(pool, 0.0)}
    failed |= {pool: now for pool, waited_s in awaited.items() if waited_s >= patience.get(pool, 0)}
    return Memory(
        now,
        memory.asked,
        there,
        {pool: waited_s for pool, waited_s in awaited.items() if pool not in failed},
        {pool: min(at, now) for pool, at in (*memory.failed.items(), *failed.items())},
    )


def _avoided(
    want: Want, nodes: Sequence[Node], notices: Sequence[NodeNotice], memory: Memory, now: float
) -> dict[str, str]:
    """Why, by pool. Ray drains a node seconds before the agent has its notice, and idle nodes for its own reasons."""
    failed = {pool: "no node came" for pool, at in memory.failed.items() if now < at + want.spot.avoid_s}
    drained = {node.pool for node in nodes if node.leaving and node.models}
    noticed = {notice.pool for notice in notices if now < notice.ends_at + want.spot.avoid_s}
    every = failed | dict.fromkeys(drained | noticed, "took one back")
    return {pool.name: every[pool.name] for pool in want.pools if pool.name in every}


def _reason(want: Want, counts: Mapping[str, int], avoided: Mapping[str, str]) -> str:
    parts = [f"{want.nodes} nodes: " + (", ".join(f"{n} {pool}" for pool, n in counts.items() if n) or "none")]
    if (missing := want.nodes - sum(counts.values())) > 0:
        parts.append(f"no room for {missing}")
    parts += [f"not {pool}: {why}" for pool, why in sorted(avoided.items())]
    return "; ".join(parts)
