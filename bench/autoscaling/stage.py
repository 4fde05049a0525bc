"""One simulated run of a policy, and the search for its loosest setting that still serves well enough."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoscaling.simulate.availability import Availability
from autoscaling.simulate.cards import assumed_model
from autoscaling.simulate.controllers import Rayfleet
from autoscaling.simulate.outcome import summary
from autoscaling.simulate.ports import Controller, Place, PlacementReading, Target
from autoscaling.simulate.scenario import Scenario, Startup
from autoscaling.simulate.traces import Request
from bench.autoscaling.fleets import MOST_REPLICAS, ON_DEMAND, fleet, places
from clusters.scaling import AutoscalingSpec
from clusters.spec import FleetSpec
from serve_app.simulation import simulate

ROUND_TRIP_S = 0.01
SETTLE_S = 60.0


@dataclass(frozen=True)
class Stage:
    """What is the same for all."""

    card: str
    requests: tuple[Request, ...]
    ttft_target_s: float
    attainment: float
    """Share of requests within the target that counts as equal service."""
    start_s: float
    """Until a new replica answers, its node included."""
    initial: int = 1


@dataclass(frozen=True)
class Run:
    policy: str
    knob: float
    attainment: float
    ttft_p99_s: float
    gpu_hours: float
    usd: float
    changes_per_hour: float
    worst_queue: int
    interrupted: int
    continued: int

    @property
    def cost(self) -> float:
        return self.gpu_hours

    def report(self) -> dict[str, Any]:
        return asdict(self)


def play(
    stage: Stage,
    policy: str,
    knob: float,
    controller: Controller,
    spec: FleetSpec | None = None,
    spot: Mapping[tuple[str, str], Availability] | None = None,
    initial: Mapping[str, int] | None = None,
) -> Run:
    """On nodes on demand, where no other fleet is given. `initial` are the replicas that answer at the start, by site:
    else the stage's."""
    spec = spec or fleet(stage.card)
    model = assumed_model(stage.card)
    begin = initial or {ON_DEMAND: stage.initial}
    scenario = Scenario(
        spec,
        stage.requests,
        dict.fromkeys(places(spec), model),
        stage.ttft_target_s,
        startup={place: Startup(stage.start_s, 0.0) for place in places(spec)},
        initial={place: begin.get(place[0], 0) for place in places(spec)},
        round_trip_s={site.name: ROUND_TRIP_S for site in spec.sites},
        spot=spot or {},
    )
    told = summary(simulate(scenario, _Settled(controller)))
    return Run(
        policy,
        knob,
        told.attainment,
        told.ttft_p99_s,
        told.gpu_hours,
        told.usd,
        told.changes_per_hour,
        told.worst_queue,
        told.interrupted,
        told.continued,
    )


def seconds_of_three_sites(stage: Stage) -> float:
    """CPU seconds that the trace takes over three sites, with our policy at each."""
    spec = fleet(stage.card, ("b", "c"))
    limits = {place: AutoscalingSpec(min_replicas=1, max_replicas=MOST_REPLICAS) for place in places(spec)}
    began = time.process_time()
    play(stage, "three sites", 0.0, Rayfleet(limits), spec, initial=dict.fromkeys(("b", "c"), 3))
    return time.process_time() - began


class _Settled:
    """Looks, but does not decide, while the trace's first requests fill an empty fleet."""

    def __init__(self, controller: Controller):
        self._controller = controller

    def targets(self, readings: Sequence[PlacementReading], now: float) -> Mapping[Place, Target]:
        targets = self._controller.targets(readings, now)
        return targets if now >= SETTLE_S else {}


def best(stage: Stage, runs: Sequence[Run]) -> list[Run]:
    """`runs` go from the tightest setting to the loosest. First the one with the fewest GPU-hours among those that
    serve well enough, as all tighter ones do: a lucky setting beyond one that fails is none to rely on. Where the
    tightest fails, the one with the most attainment."""
    good = enough(stage, runs)
    first = min(good, key=lambda run: run.gpu_hours) if good else max(runs, key=lambda run: run.attainment)
    return [first, *(run for run in runs if run is not first)]


def enough(stage: Stage, runs: Sequence[Run]) -> list[Run]:
    """From the tightest on, those before the first that does not serve well enough."""
    return list(itertools.takewhile(lambda run: run.attainment >= stage.attainment, runs))
