"""The same site with spot zones beside: ours decides how many replicas, the mix of their placement on which nodes."""

from collections.abc import Mapping

from autoscaling.simulate.availability import Availability
from autoscaling.simulate.cards import assumed_model
from autoscaling.simulate.controllers import Rayfleet
from autoscaling.simulate.outcome import summary
from autoscaling.simulate.scenario import Scenario, Startup
from bench.autoscaling.contenders import PLACE
from bench.autoscaling.fleets import ON_DEMAND, mixed_fleet
from bench.autoscaling.stage import ROUND_TRIP_S, Run, Stage
from clusters.mix import SpotSpec
from clusters.scaling import AutoscalingSpec
from serve_app.simulation import simulate

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
    spot = SpotSpec(pools=tuple(zones), min_on_demand_share=on_demand_share)
    middle_s = stage.requests[-1].at / 2
    losses = sorted(lost for availability in zones.values() for _, lost in availability.losses if lost > middle_s)
    return [_window(stage, limits, spot, zones, losses[len(losses) * n // windows] - middle_s) for n in range(windows)]


def _window(
    stage: Stage, limits: AutoscalingSpec, spot: SpotSpec, zones: Mapping[str, Availability], began: float
) -> Run:
    scenario = Scenario(
        mixed_fleet(stage.card, spot),
        stage.requests,
        {PLACE: assumed_model(stage.card)},
        stage.ttft_target_s,
        startup={PLACE: Startup(stage.start_s, 0.0)},
        initial={PLACE: stage.initial},
        round_trip_s={ON_DEMAND: ROUND_TRIP_S},
        spot={(ON_DEMAND, zone): availability.from_second(began) for zone, availability in zones.items()},
    )
    told = summary(simulate(scenario, Rayfleet({PLACE: limits})))
    return Run(
        f"spot from hour {began / HOUR_S:.0f}",
        spot.min_on_demand_share,
        told.attainment,
        told.ttft_p99_s,
        told.gpu_hours,
        told.usd,
        told.changes_per_hour,
        told.worst_queue,
        told.interrupted,
        told.continued,
    )
