"""A simulated fleet with the planner: bounds across sites around each placement's own decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaling.bounds import narrowed
from autoscaling.planning.memory import Memory
from autoscaling.planning.plan import plan
from autoscaling.simulate.controllers import Rayfleet
from autoscaling.simulate.ports import Place, PlacementReading, Target
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


def can_plan(fleet: FleetSpec) -> bool:
    """Whether there is a planner, and a model whose load it can move to another site."""
    models = [placement.model for placement in fleet.placements]
    return fleet.planner.enabled and len(set(models)) < len(models)


class Planned:
    """Sites that answer are heard, and take orders, at once; all have every release."""

    def __init__(self, fleet: FleetSpec):
        self._fleet = fleet
        self._releases = {model.name: model.release for model in fleet.models}
        self._own = {(each.site, each.model): each.autoscaling for each in fleet.placements}
        self._limits = dict(self._own)
        self._placements = Rayfleet(self._limits)  # which looks them up for each decision
        self._seen: dict[str, Observation] = {}
        self._orders: dict[str, _Order] = {}
        self._memory: Memory = {}
        self._planned_at: float | None = None

    def targets(self, readings: Sequence[PlacementReading], now: float) -> dict[Place, Target]:
        if self._planned_at is None or now - self._planned_at >= self._fleet.planner.interval_s:
            self._planned_at = now
            self._plan(readings, now)
        return self._placements.targets(readings, now)

    def _plan(self, readings: Sequence[PlacementReading], now: float) -> None:
        heard: dict[str, list[PlacementReading]] = {}
        for reading in readings:
            if reading.answers:
                heard.setdefault(reading.place[0], []).append(reading)
        self._seen |= {site: self._observation(site, each, now) for site, each in heard.items()}
        planned = plan(self._fleet, FleetState(observations=self._seen), self._memory, now)
        self._memory = planned.memory
        until = now + self._fleet.planner.lifetime_s
        targets = {reading.place: reading.target for reading in readings}
        self._orders |= {
            site: _Order(until, {each.model: each for each in planned.bounds.get(site, ())}) for site in heard
        }
        for (site, model), own in self._own.items():
            order = self._orders.get(site)
            in_force = order.bounds.get(model) if order is not None and now < order.until else None
            bounds = in_force or Bounds(model=model)
            current = targets[site, model]
            self._limits[site, model] = narrowed(own, bounds.min_replicas, bounds.max_replicas, current)

    def _observation(self, site: str, readings: Sequence[PlacementReading], now: float) -> Observation:
        placements = tuple(self._placement(reading) for reading in readings)
        releases = tuple(
            ReleaseState(model=each.model, release=each.release, phase=ReleasePhase.STORED) for each in placements
        )
        return Observation(
            site=site,
            state=SiteState(site=site, at=now, placements=placements, releases=releases, notices=readings[0].notices),
            read_at=now,
        )

    def _placement(self, reading: PlacementReading) -> PlacementState:
        model, replicas = reading.place[1], reading.replicas
        return PlacementState(
            model=model,
            release=self._releases[model],
            readiness=Readiness.READY if replicas else Readiness.STARTING if reading.starting else Readiness.ASLEEP,
            replicas=len(replicas),
            target_replicas=reading.target,
            held=reading.held + reading.displaced,
            capacity=0,
            running=sum(each.running for each in replicas),
            waiting=sum(each.waiting for each in replicas),
        )


@dataclass(frozen=True, slots=True)
class _Order:
    """What a site has heard last."""

    until: float
    bounds: Mapping[str, Bounds]
    """By model."""
