"""The same site with spot zones beside: ours decides how many replicas, the mix of their placement on which nodes."""

from collections.abc import Mapping

from autoscaling.simulate.availability import Availability
from autoscaling.simulate.controllers import Rayfleet
from bench.autoscaling.contenders import PLACE
from bench.autoscaling.fleets import ON_DEMAND, mixed_fleet
from bench.autoscaling.stage import Run, Stage, play
from clusters.mix import SpotSpec
from clusters.scaling import AutoscalingSpec

HOUR_S = 3600.0
ON_DEMAND_SHARE = 0.1


def spot_runs(
    stage: Stage,
    limits: AutoscalingSpec,
    zones: Mapping[str, Availability],
    windows: int,
    on_demand_share: float = ON_DEMAND_SHARE,
) -> list[Run]:
    """The trace in so many windows, evenly drawn from all that have a loss of some zone in their middle: the usual
    hour has fewer losses."""
    spec = mixed_fleet(stage.card, SpotSpec(pools=tuple(zones), min_on_demand_share=on_demand_share))
    middle_s = stage.requests[-1].at / 2
    losses = sorted(lost for availability in zones.values() for _, lost in availability.losses if lost > middle_s)
    runs = []
    for n in range(windows):
        began = losses[len(losses) * n // windows] - middle_s
        there = {(ON_DEMAND, zone): availability.from_second(began) for zone, availability in zones.items()}
        name = f"spot from hour {began / HOUR_S:.0f}"
        runs.append(play(stage, name, on_demand_share, Rayfleet({PLACE: limits}), spec, there))
    return runs
