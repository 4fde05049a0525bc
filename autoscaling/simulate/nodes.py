"""One site's nodes: which pools have any, and in which one more replica finds its place."""

from collections.abc import Mapping

from autoscaling.mix import Memory, News, Node, Want, decide
from autoscaling.simulate.availability import Availability
from autoscaling.simulate.billing import Meter
from clusters.mix import SpotSpec
from clusters.packing import alone
from clusters.spec import FleetSpec, PlacementSpec
from clusters.state import NodeNotice

NOTICE_LIFETIME_S = 600.0
"""After its end, for which a site's agent tells of a notice."""


class Nodes:
    """Placements of one pool find their nodes in it, as many as it may have. Those of several pools find them where the
    mix has asked for some, as at a real site."""

    def __init__(self, fleet: FleetSpec, site: str, market: Mapping[str, Availability], meter: Meter):
        """`market` is by pool; others always have nodes."""
        self._pools = {pool.name: pool for pool in fleet.site(site).pools}
        self._site = site
        self._mixed = [placement for placement in fleet.placements_at(site) if placement.spot]
        self._meter = meter
        self._closed = {pool for pool, availability in market.items() if not availability.at(0.0)}
        self._notices: dict[str, NodeNotice] = {}
        self._asked: Mapping[str, int] = {}
        # Which pools have none at the start is known: they have been asked before.
        self._memory = Memory(failed=dict.fromkeys(self._closed, 0.0))

    def ask(self, targets: Mapping[str, int], now: float) -> None:
        """For the nodes of so many replicas, by model. At every decision: the mix remembers what did not come."""
        if not self._mixed:
            return
        wants = [self._want(placement, placement.spot, targets) for placement in self._mixed if placement.spot]
        # Providers say at once when they have none.
        news = News(self.notices(now), {pool: now for pool in self._asked if pool in self._closed})
        mix = decide(wants, self._standing(), news, self._memory, now)
        self._asked, self._memory = mix.nodes, mix.memory

    def pool_for(self, placement: PlacementSpec) -> str | None:
        """One that has a node for one more of its replicas."""
        return next((pool for pool in placement.pools if self._has_place(placement, pool)), None)

    def notices(self, now: float) -> tuple[NodeNotice, ...]:
        """That the site tells of."""
        return tuple(notice for notice in self._notices.values() if now < notice.ends_at + NOTICE_LIFETIME_S)

    def close(self, pool: str, ends_at: float) -> None:
        """The provider gives notice of all the pool's nodes, and has no others."""
        self._closed.add(pool)
        self._notices[pool] = NodeNotice(node=pool, pool=pool, ends_at=ends_at)

    def reopen(self, pool: str) -> None:
        """The market has nodes again."""
        self._closed.discard(pool)

    def _want(self, placement: PlacementSpec, spot: SpotSpec, targets: Mapping[str, int]) -> Want:
        pools = tuple(self._pools[name] for name in placement.pools)
        return Want(placement.model, alone(pools, placement, targets[placement.model]).nodes, spot, pools)

    def _standing(self) -> list[Node]:
        """Idle ones go at once."""
        return [
            Node(pool, models, leaving=pool in self._closed)
            for pool in self._pools
            for models in self._meter.users(self._site, pool)
        ]

    def _has_place(self, placement: PlacementSpec, pool: str) -> bool:
        most = self._pools[pool].max_nodes
        if placement.spot:
            most = min(most, max(self._asked.get(pool, 0), self._meter.nodes(placement, pool)))
        return pool not in self._closed and self._meter.nodes(placement, pool, 1) <= most
