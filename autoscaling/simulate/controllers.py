"""How a simulated fleet is scaled: by rayfleet's own decision, or not at all."""

from collections.abc import Mapping, Sequence

from autoscaling.policy import decide
from autoscaling.signals import Reading, combine
from autoscaling.simulate.ports import Place, PlacementReading, Target
from autoscaling.state import State
from clusters.scaling import AutoscalingSpec

EPOCH_S = 1_000_000_000.0
"""Seconds since the epoch at which simulations begin: states take 0 for never."""


class Rayfleet:
    """Each placement for itself, by `autoscaling.policy`. Requests in replicas that are about to be taken away
    need a new place, as those do that the ingress holds for it."""

    def __init__(self, limits: Mapping[Place, AutoscalingSpec]):
        self._limits = limits
        self._states = {place: State() for place in limits}

    def targets(self, readings: Sequence[PlacementReading], now: float) -> dict[Place, Target]:
        return {
            reading.place: self._target(reading, reading.displaced + reading.held, EPOCH_S + now)
            for reading in readings
        }

    def _target(self, reading: PlacementReading, held: float, now: float) -> Target:
        limits = self._limits[reading.place]
        told = [
            Reading(now, replica.running, replica.waiting, replica.kv_usage, replica.busy)
            for replica in reading.replicas
        ]
        signal = combine(told, held, len(told), now, limits.signal_max_age_s)
        decision = decide(signal, self._states[reading.place], limits, reading.target, now)
        self._states[reading.place] = decision.state
        return Target(decision.target, decision.reason)


class Fixed:
    """Always so many replicas; placements that are not named keep those that they begin with."""

    def __init__(self, replicas: Mapping[Place, int]):
        self._targets = {place: Target(count, "fixed") for place, count in replicas.items()}

    def targets(self, readings: Sequence[PlacementReading], now: float) -> dict[Place, Target]:
        return self._targets
