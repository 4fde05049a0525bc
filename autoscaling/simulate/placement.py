"""One placement's replicas: they start, take requests, leave, and are taken away."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from autoscaling.simulate.billing import Meter
from autoscaling.simulate.engine import Engine, Sequence
from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.nodes import Nodes
from autoscaling.simulate.ports import PlacementReading, ReplicaReading
from autoscaling.simulate.scenario import Startup
from clusters.spec import PlacementSpec
from clusters.state import PlacementState, Readiness

Later = Callable[[float, Callable[[float], None]], None]
"""Calls a function at a time, and tells it that time."""


@dataclass(eq=False, slots=True)
class Replica:
    name: str
    pool: str
    engine: Engine
    ready: bool = False
    doomed: bool = False
    """The market takes it away soon; until it leaves, it works."""
    leaving: bool = False
    """It takes no more work."""
    gone: bool = False
    busy_before_s: float = 0.0
    """At the last reading."""
    read_at: float = 0.0

    @property
    def open(self) -> int:
        """Requests in it."""
        return self.engine.running + self.engine.waiting


@dataclass(eq=False)
class Placement:
    """Each replica is on a node of one of its pools, where `nodes` has found it a place."""

    spec: PlacementSpec
    release: str
    model: EngineModel
    block_tokens: int
    startup: Startup
    nodes: Nodes
    meter: Meter
    later: Later
    target: int = 0
    refused: int = 0
    interrupted: int = 0
    preempted: int = 0
    worst_queue: int = 0
    _replicas: list[Replica] = field(default_factory=list)
    _made: int = 0

    @property
    def place(self) -> tuple[str, str]:
        return (self.spec.site, self.spec.model)

    @property
    def serving(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.ready and not replica.leaving]

    @property
    def engines(self) -> list[Replica]:
        """All that may hold requests."""
        return [replica for replica in self._replicas if replica.ready]

    def begin(self) -> None:
        """Replicas answer from the start, where there are nodes for them."""
        for _ in range(self.target):
            if (pool := self.nodes.pool_for(self.spec)) is not None:
                self._make(pool, 0.0).ready = True

    def scale(self, now: float) -> None:
        """Have as many replicas, that answer or start, as the target says."""
        staying = self._staying
        self.refused = 0
        for missing in range(self.target - len(staying)):
            pool = self.nodes.pool_for(self.spec)
            if pool is None:
                self.refused = self.target - len(staying) - missing
                break
            self._start(pool, now)
        # Those that have done least go first: what starts, then the emptiest.
        for replica in sorted(staying, key=lambda each: (each.ready, each.open))[: max(0, len(staying) - self.target)]:
            self._leave(replica, now)

    def close(self, pool: str, now: float) -> None:
        """The provider has given notice of a pool's nodes: what only starts there is given up."""
        for replica in self._staying:
            if replica.pool == pool:
                self.interrupted += 1
                replica.doomed = True
                if not replica.ready:
                    self._leave(replica, now)

    def drain(self, pool: str, now: float) -> None:
        """No new work for what is about to go."""
        for replica in self._in(pool):
            if replica.doomed:
                self._leave(replica, now)

    def take_away(self, pool: str, now: float) -> list[tuple[Sequence, int]]:
        """What is left there is lost, with these sequences and their tokens still to come."""
        lost = []
        for replica in self._in(pool):
            lost += replica.engine.drop(now)
            self._remove(replica, now)
        return lost

    def cut(self, now: float) -> list[tuple[Sequence, int]]:
        """Nobody reaches its replicas any more; they forget what they did."""
        return [each for replica in self.engines for each in replica.engine.drop(now)]

    def pick(self) -> Replica | None:
        """As HAProxy's `leastconn` does at a site."""
        return min(self.serving, key=lambda replica: replica.open, default=None)

    def left(self, replica: Replica, now: float) -> None:
        """To be called when a replica may have become empty."""
        if replica.leaving and not replica.open:
            self._remove(replica, now)

    def reading(self, held: int, answers: bool, now: float) -> PlacementReading:
        """Once per decision: what was busy is counted since the last one."""
        return PlacementReading(
            self.place,
            tuple(_reading(replica, now) for replica in self._staying if replica.ready),
            self.target,
            sum(not replica.ready for replica in self._replicas),
            self.refused,
            sum(replica.open for replica in self._replicas if replica.doomed),
            held,
            answers,
            self.nodes.notices(now),
        )

    def state(self) -> PlacementState:
        """As the site's agent tells it."""
        serving = self.serving
        return PlacementState(
            model=self.spec.model,
            release=self.release,
            readiness=Readiness.READY if serving else Readiness.STARTING if self.target else Readiness.ASLEEP,
            replicas=len(serving),
            target_replicas=self.target,
            capacity=self.spec.capacity,
            running=sum(replica.engine.running for replica in serving),
            waiting=sum(replica.engine.waiting for replica in serving),
            kv_usage=sum(replica.engine.cache.usage for replica in serving) / len(serving) if serving else None,
        )

    @property
    def _staying(self) -> list[Replica]:
        return [replica for replica in self._replicas if not (replica.leaving or replica.doomed)]

    def _in(self, pool: str) -> list[Replica]:
        return [replica for replica in self._replicas if replica.pool == pool]

    def _start(self, pool: str, now: float) -> None:
        nodes = self.meter.nodes(self.spec, pool)
        replica = self._make(pool, now)
        new_node = self.meter.nodes(self.spec, pool) > nodes
        delay = self.startup.replica_s + (self.startup.node_s if new_node else 0.0)

        def ready(_: float) -> None:
            replica.ready = not replica.gone

        self.later(now + delay, ready)

    def _make(self, pool: str, now: float) -> Replica:
        self._made += 1
        name = f"{self.spec.site}/{self.spec.model}#{self._made}"
        replica = Replica(name, pool, Engine(self.model, self.spec.batching, self.block_tokens), read_at=now)
        self._replicas.append(replica)
        self.meter.change(self.spec, pool, 1, now)
        return replica

    def _leave(self, replica: Replica, now: float) -> None:
        replica.leaving = True
        self.left(replica, now)

    def _remove(self, replica: Replica, now: float) -> None:
        replica.gone, replica.ready = True, False
        self.preempted += replica.engine.preempted
        self._replicas.remove(replica)
        self.meter.change(self.spec, replica.pool, -1, now)


def _reading(replica: Replica, now: float) -> ReplicaReading:
    engine = replica.engine
    seconds = now - replica.read_at
    busy = (engine.busy_s(now) - replica.busy_before_s) / seconds if seconds > 0 else math.nan
    replica.busy_before_s, replica.read_at = engine.busy_s(now), now
    return ReplicaReading(replica.name, engine.running, engine.waiting, engine.cache.usage, min(1.0, max(0.0, busy)))
