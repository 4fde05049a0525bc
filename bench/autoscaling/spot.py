"""The same fleet with the spot market: ours decides how many, zones that have nodes get them, else on demand."""

import math
from collections.abc import Mapping, Sequence

from autoscaling.simulate.availability import Availability
from autoscaling.simulate.controllers import Rayfleet
from autoscaling.simulate.ports import Place, PlacementReading, Target
from bench.autoscaling.fleets import MODEL, ON_DEMAND
from bench.autoscaling.stage import Run, Stage, play
from clusters.scaling import AutoscalingSpec

HOUR_S = 3600.0
RETRY_S = 600.0
"""After which a zone that had no node is asked again."""
ON_DEMAND_SHARE = 0.1


class SpotFirst:
    """Decides for the model as a whole: `on_demand_share` on demand, the rest in zones that have nodes."""

    def __init__(self, limits: AutoscalingSpec, on_demand_share: float):
        self._all: Place = ("all", MODEL)
        self._scaler = Rayfleet({self._all: limits})
        self._share = on_demand_share
        self._target = 0
        self._closed_at: dict[Place, float] = {}

    def targets(self, readings: Sequence[PlacementReading], now: float) -> Mapping[Place, Target]:
        self._target = self._target or sum(reading.target for reading in readings)
        told = self._scaler.targets([self._together(readings)], now)[self._all]
        self._target = told.replicas
        for reading in readings:
            if reading.refused:
                self._closed_at[reading.place] = now
        on_demand = next(each for each in readings if each.place[0] == ON_DEMAND)
        zones = [each for each in readings if each is not on_demand]
        wanted = self._spread(zones, self._target - math.ceil(self._target * self._share), now)
        # What no zone has, or what does not answer there yet, stays on demand, or is had there.
        answering = sum(min(len(zone.replicas), wanted[zone.place]) for zone in zones)
        missing = self._target - sum(wanted.values())
        wanted[on_demand.place] = max(missing, min(on_demand.target, self._target - answering))
        return {place: Target(count, told.reason) for place, count in wanted.items()}

    def _spread(self, zones: Sequence[PlacementReading], replicas: int, now: float) -> dict[Place, int]:
        """Replicas stay where they are. The emptiest open zone gets the next, the fullest loses one first."""
        wanted = {zone.place: len(zone.replicas) + zone.starting for zone in zones}
        is_open = [place for place in wanted if now - self._closed_at.get(place, -math.inf) > RETRY_S]
        while is_open and sum(wanted.values()) < replicas:
            wanted[min(is_open, key=lambda place: wanted[place])] += 1
        while sum(wanted.values()) > max(0, replicas):
            wanted[max(wanted, key=lambda place: wanted[place])] -= 1
        return wanted

    def _together(self, readings: Sequence[PlacementReading]) -> PlacementReading:
        return PlacementReading(
            self._all,
            tuple(replica for reading in readings for replica in reading.replicas),
            self._target,
            sum(reading.starting for reading in readings),
            0,
            sum(reading.displaced for reading in readings),
            sum(reading.held for reading in readings),
        )


def spot_runs(
    stage: Stage,
    limits: AutoscalingSpec,
    zones: Mapping[str, Availability],
    windows: int,
    on_demand_share: float = ON_DEMAND_SHARE,
) -> list[Run]:
    """The trace in so many windows, evenly drawn from all that have a loss of some zone in their middle: the usual
    hour has fewer losses."""
    middle_s = stage.requests[-1].at / 2
    losses = sorted(lost for availability in zones.values() for _, lost in availability.losses if lost > middle_s)
    runs = []
    for n in range(windows):
        began = losses[len(losses) * n // windows] - middle_s
        there = {name: availability.from_second(began) for name, availability in zones.items()}
        open_zones = [name for name, availability in there.items() if availability.at(0.0)]
        reserve = stage.initial if not open_zones else math.ceil(stage.initial * on_demand_share)
        initial = {ON_DEMAND: reserve} | {
            name: len(range(i, stage.initial - reserve, len(open_zones))) for i, name in enumerate(open_zones)
        }
        controller = SpotFirst(limits, on_demand_share)
        runs.append(play(stage, f"spot from hour {began / HOUR_S:.0f}", on_demand_share, controller, there, initial))
    return runs
