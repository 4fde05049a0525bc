"""Other ways to scale, each for the one placement of the bench: Ray Serve's own code, and documented rules."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

# Ray's policy reads the wall clock, which a simulation doesn't have, in its delays alone: these take a time.
from ray.serve.autoscaling_policy import (
    _apply_delay_logic,
    _apply_scaling_factors,
    replica_queue_length_autoscaling_policy,
)
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from autoscaling.simulate.ports import Place, PlacementReading, Target
from bench.autoscaling.fleets import MOST_REPLICAS


class _Means:
    """Of the last seconds' readings, one per tick of a second."""

    def __init__(self, seconds: int):
        self._values: deque[float] = deque(maxlen=seconds)

    def add(self, value: float) -> float:
        self._values.append(value)
        return sum(self._values) / len(self._values)


class RayServe:
    """`ray.serve`'s default: all settings as they come but `target_ongoing_requests`. Requests are averaged over its
    look-back period."""

    def __init__(self, target_ongoing_requests: float):
        self._config = AutoscalingConfig(
            min_replicas=1, max_replicas=MOST_REPLICAS, target_ongoing_requests=target_ongoing_requests
        )
        self._requests = _Means(int(self._config.look_back_period_s))
        self._state: dict[str, Any] = {}

    def targets(self, readings: Sequence[PlacementReading], now: float) -> Mapping[Place, Target]:
        (reading,) = readings
        context = AutoscalingContext(
            deployment_id=None,
            deployment_name="bench",
            app_name=None,
            current_num_replicas=len(reading.replicas),
            target_num_replicas=reading.target,
            running_replicas=[],
            total_num_requests=self._requests.add(_requests(reading)),
            total_queued_requests=float(reading.held),
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=MOST_REPLICAS,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now,
            config=self._config,
        )
        desired, _ = replica_queue_length_autoscaling_policy(context)
        scaled = _apply_scaling_factors(desired, context.current_num_replicas, self._config)
        target, self._state = _apply_delay_logic(scaled, reading.target, self._config, self._state, _now=now)
        return {reading.place: Target(_bounded(target), "Ray Serve")}


class Knative:
    """The KPA's rule as Knative documents it, with its defaults: a stable window of 60 s, a panic window of a tenth,
    panic from twice the capacity on, at most halved at once, decisions every 2 s."""

    STABLE_S, PANIC_S, PANIC_AT, TICK_S = 60, 6, 2.0, 2

    def __init__(self, target: float):
        self._target = target
        self._stable = _Means(self.STABLE_S)
        self._panic = _Means(self.PANIC_S)
        self._panicked_at = -math.inf
        self._most = 0

    def targets(self, readings: Sequence[PlacementReading], now: float) -> Mapping[Place, Target]:
        (reading,) = readings
        stable, panic = self._stable.add(_requests(reading)), self._panic.add(_requests(reading))
        if int(now) % self.TICK_S:
            return {}
        ready = max(1, len(reading.replicas))
        fewest = math.floor(ready / 2)
        by_stable = max(fewest, math.ceil(stable / self._target))
        by_panic = max(fewest, math.ceil(panic / self._target))
        if by_panic / ready >= self.PANIC_AT:
            self._panicked_at = now
        if now - self._panicked_at < self.STABLE_S:
            self._most = max(self._most, by_stable, by_panic)  # never down while in panic
            return {reading.place: Target(_bounded(self._most), "panic")}
        self._most = 0
        return {reading.place: Target(_bounded(by_stable), "stable")}


class GpuUtilisation:
    """Kubernetes' HorizontalPodAutoscaler on the share of time in which GPUs compute, with its defaults: every 15 s, no
    change within a tenth, at most doubled or four more at once, down to the most of the last 300 s."""

    TICK_S, TOLERANCE, STABLE_S = 15, 0.1, 300

    def __init__(self, target: float):
        self._target = target
        self._busy = _Means(self.TICK_S)
        self._wanted: deque[int] = deque(maxlen=self.STABLE_S // self.TICK_S)

    def targets(self, readings: Sequence[PlacementReading], now: float) -> Mapping[Place, Target]:
        (reading,) = readings
        ready = len(reading.replicas)
        mean = self._busy.add(sum(replica.busy for replica in reading.replicas) / ready if ready and now else 0.0)
        if int(now) % self.TICK_S or not now:
            return {}
        ratio = mean / self._target
        wanted = math.ceil(ready * ratio) if abs(ratio - 1) > self.TOLERANCE else reading.target
        wanted = min(wanted, max(2 * reading.target, reading.target + 4))
        self._wanted.append(wanted)
        return {reading.place: Target(_bounded(max(self._wanted)), f"{mean:.2f} busy")}


def _requests(reading: PlacementReading) -> float:
    return reading.held + sum(replica.running + replica.waiting for replica in reading.replicas)


def _bounded(replicas: float) -> int:
    return max(1, min(MOST_REPLICAS, math.ceil(replicas)))
