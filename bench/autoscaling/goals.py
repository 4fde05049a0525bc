"""The goals, and which of them the figures meet."""

from collections.abc import Mapping, Sequence

from bench.autoscaling.contenders import OURS, RAY
from bench.autoscaling.oracle import NAME as ORACLE
from bench.autoscaling.stage import Run, Stage
from bench.goals import Goal


def goals(stage: Stage, runs: Mapping[str, Sequence[Run]], spot: Sequence[Run], speed_s: float) -> list[Goal]:
    """`runs` are by policy, the best first; a policy without enough attainment at any setting measures nothing."""

    def best(name: str) -> Run | None:
        first = runs[name][0] if runs.get(name) else None
        return first if first is not None and first.attainment >= stage.attainment else None

    def hours(name: str) -> float | None:
        return run.gpu_hours if (run := best(name)) else None

    ours, rays, oracles, on_demand = hours(OURS), hours(RAY), hours(ORACLE), best(OURS)
    cheaper = 1 - sum(run.usd for run in spot) / len(spot) / on_demand.usd if spot and on_demand else None
    lowest = min((run.attainment for run in spot), default=None)
    return [
        Goal("gpu_hours_by_oracle", ours / oracles if ours and oracles else None, 1.15, at_most=True),
        Goal("gpu_hours_saved_beside_ray", 1 - ours / rays if ours and rays else None, 0.25, at_most=False),
        Goal("spot_saving", cheaper, 0.40, at_most=False),
        Goal("spot_lowest_attainment", lowest, stage.attainment, at_most=False),
        Goal("simulated_hour_of_3_sites_s", speed_s, 15, at_most=True),
    ]
