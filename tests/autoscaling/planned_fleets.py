"""Fleets to plan for, what their sites say, and a world in which they live: loads, replicas that take time to start."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoscaling.planning.memory import Memory
from autoscaling.planning.plan import Plan, plan
from clusters.routing import RoutingSpec
from clusters.spec import (
    FleetSpec,
    IngressSpec,
    MachinesSpec,
    Market,
    ModelSpec,
    PlacementSpec,
    PoolSpec,
    Provider,
    SiteSpec,
    Task,
)
from clusters.state import (
    Bounds,
    FleetState,
    NodeNotice,
    Observation,
    PlacementState,
    Readiness,
    ReleasePhase,
    ReleaseState,
    SiteState,
)
from clusters.storage import StoreSpec, WeightsSpec

RELEASE = "0" * 12
INTERVAL_S = 5.0
QUIET = {"predictive": False, "window_s": 10, "scale_down_delay_s": 60, "start_up_s": 30, "start_up_deadline_s": 120}


def site(name: str, usd: float = 1.0, market: Market = Market.ON_DEMAND, **pool: Any) -> SiteSpec:
    nodes = {"min_nodes": 0, "max_nodes": 8, "gpus": 1, "cpus": 8, **pool}
    return SiteSpec(
        name=name,
        provider=Provider.AWS,
        region="r",
        jurisdiction="us",
        endpoint=f"https://{name}.example.com",
        store=StoreSpec(url="s3://b/p"),
        machines=MachinesSpec(head="x"),
        pools=(PoolSpec(name="p", instance_type="x", accelerator="L4", market=market, usd_per_hour=usd, **nodes),),
    )


def placement(where: str, model: str = "m", gpus: float = 1, **scaling: Any) -> PlacementSpec:
    autoscaling = {"min_replicas": 0, "max_replicas": 8, "target_queue_depth": 8, **QUIET, **scaling}
    return PlacementSpec.model_validate(
        {
            "model": model,
            "site": where,
            "pool": "p",
            "gpus": gpus,
            "batching": {"max_num_seqs": 16, "max_num_batched_tokens": 1024},
            "autoscaling": autoscaling,
        }
    )


def fleet(
    sites: Sequence[SiteSpec], placements: Sequence[PlacementSpec], routing: RoutingSpec | None = None, **model: Any
) -> FleetSpec:
    names = dict.fromkeys(each.model for each in placements)
    return FleetSpec(
        name="test",
        sites=tuple(sites),
        models=tuple(
            ModelSpec(name=name, source="s", release=RELEASE, tasks=(Task.CHAT,), max_model_len=1024, **model)
            for name in names
        ),
        placements=tuple(placements),
        weights=WeightsSpec(home=sites[0].name),
        ingress=IngressSpec(machines=MachinesSpec(head="x")),
        routing=routing or RoutingSpec(),
    )


def three(least_dear: int = 0) -> FleetSpec:
    """Nodes that are paid for at home, then spot, then on demand."""
    return fleet(
        [
            site("home", 0.5, Market.RESERVED, min_nodes=2, max_nodes=2),
            site("spot", 0.4, Market.SPOT),
            site("dear", 1.0),
        ],
        [placement("home", max_replicas=2), placement("spot"), placement("dear", min_replicas=least_dear)],
    )


def told(model: str = "m", ready: int = 1, load: float | None = 0, **fields: Any) -> PlacementState:
    """What an agent says of a placement whose engines have so many requests."""
    values = {
        "model": model,
        "release": RELEASE,
        "readiness": Readiness.READY if ready else Readiness.ASLEEP,
        "replicas": ready,
        "target_replicas": ready,
        "capacity": 16,
        "running": None if load is None or not ready else int(load),
        "waiting": None if load is None or not ready else 0,
        **fields,
    }
    return PlacementState.model_construct(**values) if "held" in values else PlacementState(**values)


def seen(
    now: float,
    places: Mapping[str, PlacementState | Sequence[PlacementState] | None],
    *,
    draining: Sequence[str] = (),
    notices: Sequence[str] = (),
    without_release: Sequence[str] = (),
    silent_of_releases: Sequence[str] = (),
) -> FleetState:
    """None: the site is silent."""
    phases = dict.fromkeys(places, ReleasePhase.STORED) | dict.fromkeys(without_release, ReleasePhase.COPYING)
    return FleetState.model_construct(
        observations={
            name: _observation(
                name,
                state,
                now,
                name in draining,
                name in notices,
                None if name in silent_of_releases else phases[name],
            )
            for name, state in places.items()
        }
    )


def _observation(
    name: str,
    state: PlacementState | Sequence[PlacementState] | None,
    now: float,
    draining: bool,
    notice: bool,
    phase: ReleasePhase | None,
) -> Observation:
    if state is None:
        return Observation(site=name, error="no answer")
    states = (state,) if isinstance(state, PlacementState) else tuple(state)
    releases = (
        () if phase is None else (ReleaseState(model=each.model, release=RELEASE, phase=phase) for each in states)
    )
    told_by_site = SiteState.model_construct(
        site=name,
        at=now,
        drain_s=60.0 if draining else None,
        placements=states,
        releases=tuple(releases),
        notices=(NodeNotice(node="n", pool="p", ends_at=now + 120),) if notice else (),
    )
    return Observation.model_construct(site=name, state=told_by_site, read_at=now, error="")


def of(planned: Plan, where: str, model: str = "m") -> Bounds:
    """The bounds of a placement, empty ones where it scales by itself."""
    return next((each for each in planned.bounds.get(where, ()) if each.model == model), Bounds(model=model))


@dataclass
class Region:
    """A site's replicas of the one model, which follow its own load within the planner's bounds."""

    spec: PlacementSpec
    born: list[float]
    load: float = 0.0
    bounds: Bounds | None = None
    wants: list[tuple[float, int]] = field(default_factory=list)

    def ready(self, now: float) -> int:
        return sum(now - born >= self.spec.autoscaling.start_up_s for born in self.born)

    def scale(self, now: float) -> None:
        """To the most that was needed within the delay, as the site's own policy does."""
        scaling = self.spec.autoscaling
        least = max(scaling.min_replicas, (self.bounds and self.bounds.min_replicas) or 0)
        most = scaling.max_replicas
        if self.bounds and self.bounds.max_replicas is not None:
            most = max(least, self.bounds.max_replicas)
        need = max(least, math.ceil(self.load / scaling.target_queue_depth - 1e-9))
        self.wants = [each for each in self.wants if each[0] > now - scaling.scale_down_delay_s] + [(now, need)]
        target = min(max(want for _, want in self.wants), most)
        self.born = (self.born + [now] * max(0, target - len(self.born)))[:target]


@dataclass
class World:
    """Time passes in intervals; requests go to the cheapest ready replicas, what is too much to all in equal parts."""

    fleet: FleetSpec
    regions: dict[str, Region]
    memory: Memory = field(default_factory=dict)
    now: float = 1000.0
    silent: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    """Sites that are heard, and get no order."""
    planned: bool = True
    history: list[dict[str, tuple[int | None, int | None, str]]] = field(default_factory=list)
    late: float = 0.0
    """Requests beyond what ready replicas are for, times seconds."""

    @classmethod
    def of(cls, spec: FleetSpec, **ready: int) -> "World":
        """With so many ready replicas by site."""
        regions = {each.site: Region(each, [0.0] * ready.get(each.site, 0)) for each in spec.placements}
        return cls(spec, regions)

    @property
    def totals(self) -> int:
        return sum(len(region.born) for region in self.regions.values())

    def restart(self) -> None:
        """The planner's process is another one."""
        self.memory = {}

    def run(self, load: float, seconds: float) -> "World":
        for _ in range(int(seconds / INTERVAL_S)):
            self.step(load)
        return self

    def step(self, load: float) -> Plan | None:
        self.now += INTERVAL_S
        self._route(load)
        planned = self._plan() if self.planned else None
        for name, region in self.regions.items():
            if planned is None:
                region.bounds = None
            elif name not in self.silent | self.deaf:
                region.bounds = next(iter(planned.bounds.get(name, ())), None)
            region.scale(self.now)
        return planned

    def _plan(self) -> Plan:
        planned = plan(self.fleet, self._seen(), self.memory, self.now)
        self.memory = planned.memory
        self.history.append(
            {
                name: (of(planned, name).min_replicas, of(planned, name).max_replicas, of(planned, name).reason)
                for name in self.regions
            }
        )
        return planned

    def _route(self, load: float) -> None:
        prices = {each.name: each.pools[0].usd_per_hour for each in self.fleet.sites}
        rooms = {
            name: region.ready(self.now) * region.spec.autoscaling.target_queue_depth
            for name, region in self.regions.items()
        }
        left = load
        for name in sorted(rooms, key=lambda name: prices[name]):
            self.regions[name].load = min(left, rooms[name])
            left -= self.regions[name].load
        awake = [name for name, room in rooms.items() if room] or list(rooms)
        for name in awake:
            self.regions[name].load += left / len(awake)
        self.late += left * INTERVAL_S

    def _seen(self) -> FleetState:
        states: dict[str, PlacementState | Sequence[PlacementState] | None] = {}
        for name, region in self.regions.items():
            ready = region.ready(self.now)
            state = told(
                ready=ready,
                load=region.load,
                held=0.0 if ready else region.load,
                target_replicas=len(region.born),
                readiness=Readiness.READY if ready else Readiness.STARTING if region.born else Readiness.ASLEEP,
                bounds=region.bounds,
                running=min(region.load, ready * region.spec.autoscaling.target_queue_depth) if ready else None,
                waiting=max(0, region.load - ready * region.spec.autoscaling.target_queue_depth) if ready else None,
            )
            states[name] = None if name in self.silent else state
        return seen(self.now, states)
