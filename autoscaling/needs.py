"""How many replicas the present load asks for: one function per `ScalingPolicy`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from autoscaling.signals import Signal
from autoscaling.state import State
from clusters.scaling import AutoscalingSpec, ScalingPolicy

ROUNDING = 1e-9
"""Sums of floats may be this much too high, and must not cost a replica."""


@dataclass(frozen=True, slots=True)
class Need:
    """`least` replicas carry the load. Fewer than `stay` would be too tight to let others go."""

    least: int
    stay: int
    reason: str


def queue_depth(signal: Signal, state: State, limits: AutoscalingSpec, now: float) -> Need:
    """Requests per replica, averaged over `window_s`, and in a burst over `panic_window_s` where that is more. Full KV
    caches ask for more replicas, however short the queue is."""
    slot_s = slot_length(limits)
    load, name = state.load.mean(now, limits.window_s, slot_s) or 0.0, "requests"
    if state.panicked_at is not None:
        burst = state.load.mean(now, limits.panic_window_s, slot_s) or 0.0
        load, name = max((load, name), (burst, "requests in a burst"))
    kv_used = state.kv_used.mean(now, limits.window_s, slot_s) or 0.0
    by_load, by_kv = load / limits.target_queue_depth, kv_used / limits.max_kv_usage
    stay = _ceil(max(by_load, by_kv) / (1 - limits.scale_down_margin)) + signal.silent
    if _ceil(by_kv) > _ceil(by_load):
        return Need(_ceil(by_kv), stay, f"{kv_used:.2f} KV caches in use at {limits.max_kv_usage:g} per replica")
    return Need(_ceil(by_load), stay, f"{load:.1f} {name} at {limits.target_queue_depth:g} per replica")


def utilisation(signal: Signal, state: State, limits: AutoscalingSpec, now: float) -> Need:
    """Busy GPUs, averaged over `window_s`. Where no replica is ready there are none, and what waits counts instead."""
    if signal.ready == 0:
        return queue_depth(signal, state, limits, now)
    busy = state.busy.mean(now, limits.window_s, slot_length(limits)) or 0.0
    by_busy = busy / limits.target_utilisation
    stay = _ceil(by_busy / (1 - limits.scale_down_margin)) + signal.silent
    return Need(_ceil(by_busy), stay, f"{busy:.2f} GPUs busy at {limits.target_utilisation:g} per replica")


NEEDS: dict[ScalingPolicy, Callable[[Signal, State, AutoscalingSpec, float], Need]] = {
    ScalingPolicy.QUEUE_DEPTH: queue_depth,
    ScalingPolicy.UTILISATION: utilisation,
}


def slot_length(limits: AutoscalingSpec) -> float:
    """Seconds. Short enough for the panic window to have three pieces, long enough to keep few in all."""
    return max(limits.panic_window_s / 3, limits.window_s / 60)


def _ceil(replicas: float) -> int:
    return math.ceil(replicas - ROUNDING)
