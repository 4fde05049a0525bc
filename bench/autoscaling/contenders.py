"""The policies, each with settings of its one knob, from tight to loose, between which the best is looked for too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoscaling.simulate.controllers import Fixed, Rayfleet
from autoscaling.simulate.ports import Controller
from bench.autoscaling.fleets import MODEL, MOST_REPLICAS, ON_DEMAND
from bench.autoscaling.peers import GpuUtilisation, Knative, RayServe
from bench.autoscaling.stage import Run, Stage, best, enough, play
from clusters.scaling import AutoscalingSpec

OURS, RAY, FIXED = "rayfleet", "ray-serve", "fixed"
RAY_AS_IT_COMES = 2.0
"""Ray Serve's `target_ongoing_requests`, when nobody sets it."""
REQUESTS = (8, 12, 16, 18, 20, 22, 24, 26, 28)
"""Per replica."""
HALVINGS = 3
"""Of the step from the last setting that serves well enough to the next, which does not: else where settings happen to
lie would favour one policy or another."""
PLACE = (ON_DEMAND, MODEL)


@dataclass(frozen=True)
class Contender:
    knob: str
    settings: Sequence[float]
    make: Callable[[float, Stage], Controller]
    whole: bool = False
    """There is nothing between two settings."""


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
    FIXED: Contender("replicas", (10, 9, 8, 7, 6), lambda knob, _: Fixed({PLACE: int(knob)}), whole=True),
}


def contend(name: str, stage: Stage) -> list[Run]:
    """Every setting's run, the best first."""
    contender = CONTENDERS[name]
    runs = [_play(stage, name, knob) for knob in contender.settings]
    for _ in range(0 if contender.whole else HALVINGS):
        good = len(enough(stage, runs))
        if not 0 < good < len(runs):
            break
        runs.insert(good, _play(stage, name, (runs[good - 1].knob + runs[good].knob) / 2))
    return best(stage, runs)


def _play(stage: Stage, name: str, knob: float) -> Run:
    begin = int(knob) if name == FIXED else stage.initial
    return play(stage, name, knob, CONTENDERS[name].make(knob, stage), initial={ON_DEMAND: begin})


def ray_as_it_comes(stage: Stage) -> Run:
    """With no setting at all."""
    return play(stage, RAY, RAY_AS_IT_COMES, RayServe(RAY_AS_IT_COMES))
