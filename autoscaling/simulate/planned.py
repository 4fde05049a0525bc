"""A simulated fleet with the planner: bounds across sites around each placement's own decision."""

from collections.abc import Sequence

from autoscaling.planning.memory import Memory
from autoscaling.planning.plan import plan
from autoscaling.simulate.controllers import Rayfleet
from autoscaling.simulate.ports import Place, PlacementReading, Target
from clusters.scaling import AutoscalingSpec
from clusters.spec import FleetSpec
from clusters.state import (
    Bounds,
    FleetState,
    Observation,
    PlacementState,
    Readiness,
    ReleasePhase,
    ReleaseState,
    SiteState,
)


class Planned:
    """Every site is heard, has every release, and takes orders at once."""

    def __init__(self, fleet: FleetSpec):
        self._fleet = fleet
        self._releases = {model.name: model.release for model in fleet.models}
        self._own = {(each.site, each.model): each.autoscaling for each in fleet.placements}
        self._limits = dict(self._own)
        self._placements = Rayfleet(self._limits)  # which looks them up for each decision
        self._memory: Memory = {}
        self._planned_at: float | None = None

    def targets(self, readings: Sequence[PlacementReading], now: float) -> dict[Place, Target]:
        if self._planned_at is None or now - self._planned_at >= self._fleet.planner.interval_s:
            self._planned_at = now
            self._plan(readings, now)
        return self._placements.targets(readings, now)

    def _plan(self, readings: Sequence[PlacementReading], now: float) -> None:
        planned = plan(self._fleet, self._seen(readings, now), self._memory, now)
        self._memory = planned.memory
        bounds = {(site, each.model): each for site, of in planned.bounds.items() for each in of}
        for place, own in self._own.items():
            self._limits[place] = _narrowed(own, bounds.get(place))

    def _seen(self, readings: Sequence[PlacementReading], now: float) -> FleetState:
        sites = {site.name: [each for each in readings if each.place[0] == site.name] for site in self._fleet.sites}
        return FleetState(observations={site: self._observation(site, each, now) for site, each in sites.items()})

    def _observation(self, site: str, readings: Sequence[PlacementReading], now: float) -> Observation:
        placements = tuple(self._placement(reading) for reading in readings)
        releases = tuple(
            ReleaseState(model=each.model, release=each.release, phase=ReleasePhase.STORED) for each in placements
        )
        return Observation(
            site=site, state=SiteState(site=site, at=now, placements=placements, releases=releases), read_at=now
        )

    def _placement(self, reading: PlacementReading) -> PlacementState:
        model, replicas = reading.place[1], reading.replicas
        return PlacementState(
            model=model,
            release=self._releases[model],
            readiness=Readiness.READY if replicas else Readiness.STARTING if reading.starting else Readiness.ASLEEP,
            replicas=len(replicas),
            target_replicas=len(replicas) + reading.starting,
            held=reading.held + reading.displaced,
            capacity=0,
            running=sum(each.running for each in replicas),
            waiting=sum(each.waiting for each in replicas),
        )


def _narrowed(own: AutoscalingSpec, bounds: Bounds | None) -> AutoscalingSpec:
    """As `ReplicaPolicy` does it."""
    if bounds is None:
        return own
    least = min(max(bounds.min_replicas or 0, own.min_replicas), own.max_replicas)
    most = own.max_replicas if bounds.max_replicas is None else max(min(bounds.max_replicas, own.max_replicas), least)
    return own.model_copy(update={"min_replicas": least, "max_replicas": most})
