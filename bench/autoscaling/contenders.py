"""The policies, each with the settings of its one knob, from tight to loose, among which the best is looked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoscaling.simulate.controllers import Fixed, Rayfleet
from autoscaling.simulate.ports import Controller
from bench.autoscaling.fleets import MODEL, MOST_REPLICAS, ON_DEMAND
from bench.autoscaling.peers import GpuUtilisation, Knative, RayServe
from bench.autoscaling.stage import Run, Stage, best, play
from clusters.scaling import AutoscalingSpec

OURS, RAY, FIXED = "rayfleet", "ray-serve", "fixed"
RAY_AS_IT_COMES = 2.0
"""Ray Serve's `target_ongoing_requests`, when nobody sets it."""
REQUESTS = (8, 12, 16, 18, 20, 22, 24, 26, 28)
"""Per replica."""
PLACE = (ON_DEMAND, MODEL)


@dataclass(frozen=True)
class Contender:
    knob: str
    settings: Sequence[float]
    make: Callable[[float, Stage], Controller]


def limits(target: float, stage: Stage) -> AutoscalingSpec:
    """Ours as it comes, but for the target and the start-up delay that it is told."""
    return AutoscalingSpec(
        min_replicas=1, max_replicas=MOST_REPLICAS, target_queue_depth=target, start_up_s=stage.start_s
    )


CONTENDERS = {
    OURS: Contender("target_queue_depth", REQUESTS, lambda knob, stage: Rayfleet({PLACE: limits(knob, stage)})),
    RAY: Contender("target_ongoing_requests", REQUESTS, lambda knob, _: RayServe(knob)),
    "knative": Contender("concurrency target", REQUESTS, lambda knob, _: Knative(knob)),
    "gpu": Contender("utilisation", (0.5, 0.7, 0.8, 0.85, 0.9), lambda knob, _: GpuUtilisation(knob)),
    FIXED: Contender("replicas", (10, 9, 8, 7, 6), lambda knob, _: Fixed({PLACE: int(knob)})),
}


def contend(name: str, stage: Stage) -> list[Run]:
    """Every setting's run, the best first."""
    contender = CONTENDERS[name]
    runs = []
    for knob in contender.settings:
        begin = int(knob) if name == FIXED else stage.initial
        runs.append(play(stage, name, knob, contender.make(knob, stage), initial={ON_DEMAND: begin}))
    return best(stage, runs)


def ray_as_it_comes(stage: Stage) -> Run:
    """With no setting at all."""
    return play(stage, RAY, RAY_AS_IT_COMES, RayServe(RAY_AS_IT_COMES))
