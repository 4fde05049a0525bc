"""Everything that a simulation depends on, beside the code that routes and scales."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoscaling.simulate.availability import Availability, Outage
from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.ports import Place
from autoscaling.simulate.traces import Request
from clusters.spec import FleetSpec


@dataclass(frozen=True)
class Startup:
    """Seconds from the decision until a new replica answers."""

    replica_s: float = 60.0
    """On a node that is there,"""
    node_s: float = 60.0
    """and so many more where one must come first."""


@dataclass(frozen=True)
class Scenario:
    """Hosted targets are not simulated: the fleet should have none."""

    fleet: FleetSpec
    requests: tuple[Request, ...]
    """In order of time; each names a model of the fleet."""
    engines: Mapping[Place, EngineModel]
    ttft_target_s: float = 1.0
    startup: Mapping[Place, Startup] = field(default_factory=dict)
    initial: Mapping[Place, int] = field(default_factory=dict)
    """Replicas that answer when the trace begins; the placement's fewest where it is not named."""
    round_trip_s: Mapping[str, float] = field(default_factory=dict)
    """Between ingress and site."""
    spot: Mapping[tuple[str, str], Availability] = field(default_factory=dict)
    """By site and pool. Others are always available."""
    outages: tuple[Outage, ...] = ()
    seed: int = 0
    """Of when sites are polled; the router is given its own."""
    tick_s: float = 1.0
    """Between two decisions of the controller."""

    def startup_of(self, place: Place) -> Startup:
        return self.startup.get(place, Startup())
