"""How many replicas a placement should have. Pure: clock and past are arguments, the reason is in the answer."""

import math
from dataclasses import dataclass, replace

from autoscaling.signals import Signal


@dataclass(frozen=True)
class Limits:
    """Bounds and damping. See `AutoscalingSpec` in clusters/spec.py for units and defaults."""

    min_replicas: int
    max_replicas: int
    target_queue_depth: float
    scale_down_delay_s: float


@dataclass(frozen=True)
class Need:
    """How many replicas the load of one moment asked for."""

    at: float
    replicas: int


@dataclass(frozen=True)
class State:
    """What the next decision has to remember: needs of the last `scale_down_delay_s`, as a falling staircase.

    A need is dropped once a later one is at least as high, so the length is at most `max_replicas`.
    """

    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Decision:
    target: int
    reason: str
    state: State


def decide(signal: Signal, state: State, limits: Limits, current: int, now: float) -> Decision:
    """Up at once, down only when the need stayed lower for `scale_down_delay_s`; no data means no change.

    `current` is the present target in replicas, `now` seconds since the epoch.
    """
    held = min(max(current, limits.min_replicas), limits.max_replicas)
    if signal.depth is None:
        return Decision(held, f"hold {held}: no replica reported its queue", state)

    need = min(max(math.ceil(signal.depth / limits.target_queue_depth), limits.min_replicas), limits.max_replicas)
    state = _remember(state, Need(now, need), limits)
    load = f"queue depth {signal.depth:.1f} at {limits.target_queue_depth:g} per replica"
    if need > held:
        return Decision(need, f"up {held} to {need}: {load}", state)

    peak = state.needs[0].replicas
    if peak < held:
        return Decision(peak, f"down {held} to {peak}: {load}, not more in {limits.scale_down_delay_s:g} s", state)
    if need < held:
        return Decision(
            held, f"hold {held}: {load} needs {need}, but {peak} within {limits.scale_down_delay_s:g} s", state
        )
    return Decision(held, f"hold {held}: {load}", state)


def _remember(state: State, need: Need, limits: Limits) -> State:
    recent = tuple(
        past
        for past in state.needs
        if need.at - limits.scale_down_delay_s <= past.at <= need.at and past.replicas > need.replicas
    )
    return replace(state, needs=(*recent, need))
