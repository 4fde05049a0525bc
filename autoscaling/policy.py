"""How many replicas a placement should have. Pure: clock and past are arguments, the reason is in the answer."""

import math
from dataclasses import dataclass, replace

from autoscaling.forecast import NO_FLOOR, Floor, History, floor
from autoscaling.needs import NEEDS, Need, slot_length
from autoscaling.signals import Signal
from autoscaling.state import Coming, State
from autoscaling.windows import Window
from clusters.scaling import AutoscalingSpec, ScalingPolicy


@dataclass(frozen=True, slots=True)
class Decision:
    """`target` in replicas, and why, for people."""

    target: int
    reason: str
    state: State


def decide(signal: Signal, state: State, limits: AutoscalingSpec, current: int, now: float) -> Decision:
    """Up at once, as far as the slew limits let; down only when fewer were enough for `scale_down_delay_s`.

    `current` is the present target in replicas, `now` seconds since the epoch. Without data nothing changes but what
    the bounds demand.
    """
    held = min(max(current, limits.min_replicas), limits.max_replicas)
    if missing := _missing(signal, limits, now):
        return Decision(held, f"hold {held}: {missing}", state)

    state = _observe(signal, state, limits, held, now)
    need = _need(signal, state, limits, held, now)
    # Not `min_replicas`: a planner's floor counts as long as it stands, and is not remembered after that.
    lowest = max(min(held, 1), state.floor.replicas)
    state = replace(state, needs=state.needs.add(max(need.stay, lowest), now, limits.scale_down_delay_s))
    wanted = min(max(need.least, state.floor.replicas), limits.max_replicas)
    if wanted > held:
        return _up(signal, state, limits, held, wanted, need)
    return _down(state, limits, held, need, now)


def _up(signal: Signal, state: State, limits: AutoscalingSpec, held: int, wanted: int, need: Need) -> Decision:
    """Replicas that only start count as coming, not as a base for more: what never gets ready can't run away. What was
    needed before, and is foreseen, may come in one step."""
    reason = need.reason if need.least >= wanted else f"floor {wanted}: {state.floor.reason}"
    base = max(signal.ready, 1)
    most = max(base + 1, min(int(base * limits.max_up_factor), base + limits.max_up_replicas))
    target = min(wanted, max(held, most, state.floor.replicas))
    if target < wanted:
        reason += f"; {wanted} wanted, but at most {target} while {signal.ready} are ready"
    if target == held:
        return Decision(held, f"hold {held}: {reason}", state)
    return Decision(target, f"up {held} to {target}: {reason}", state)


def _down(state: State, limits: AutoscalingSpec, held: int, need: Need, now: float) -> Decision:
    """One step per `window_s`, to the most that was needed within the delay. The last replica goes when it is idle."""
    idle_s = now - state.busy_at
    if held == 1 > max(limits.min_replicas, state.floor.replicas) and idle_s >= limits.scale_to_zero_delay_s:
        return Decision(0, f"down 1 to 0: no request for {idle_s:.0f} s", state)
    peak, delay = max(state.needs.highest, limits.min_replicas), limits.scale_down_delay_s
    target = max(peak, math.ceil(held / limits.max_down_factor), held - limits.max_down_replicas)
    if target >= held:
        return Decision(held, f"hold {held}: {_why_not_fewer(state, limits, held, need)}", state)
    if (watched_s := now - state.watched_since) < delay:
        return Decision(held, f"hold {held}: {need.reason}, watched for {watched_s:.0f} s of {delay:g}", state)
    if state.stepped_down_at is not None and now - state.stepped_down_at < limits.window_s:
        return Decision(held, f"hold {held}: {need.reason}, the latest step down was just taken", state)
    reason = f"down {held} to {target}: {need.reason}, not more in {delay:g} s"
    return Decision(target, reason, replace(state, stepped_down_at=now))


def _why_not_fewer(state: State, limits: AutoscalingSpec, held: int, need: Need) -> str:
    if need.stay >= held:
        return need.reason
    if state.floor.replicas >= held:
        return f"floor {held}: {state.floor.reason}"
    peak = state.needs.highest
    if peak < held or held <= max(limits.min_replicas, 1):
        return need.reason
    return f"{need.reason} needs {need.stay}, but {peak} within {limits.scale_down_delay_s:g} s"


def _missing(signal: Signal, limits: AutoscalingSpec, now: float) -> str:
    """Why the signal says nothing; empty when it does."""
    age = now - signal.at
    if not abs(age) <= limits.signal_max_age_s:
        return f"the load was last read {age:.0f} s ago" if age > 0 else f"the load is from {-age:.0f} s ahead"
    if signal.load is None:
        return "no replica reported its load" if signal.ready else "nothing is ready and the ingress says nothing"
    if limits.policy is ScalingPolicy.UTILISATION and signal.busy is None and signal.ready:
        return "no replica reported how busy its GPUs are"
    return ""


def _observe(signal: Signal, state: State, limits: AutoscalingSpec, held: int, now: float) -> State:
    """Adds the signal. After a gap, or a jump of the clock, only the history counts: nothing is known of how long the
    load has been low, so no replica goes for a while."""
    if state.at is None or not 0 <= now - state.at <= max(limits.window_s, limits.signal_max_age_s):
        state = State(watched_since=now, busy_at=now, history=state.history)
    value = signal.load or 0.0
    span_s, slot_s = max(limits.window_s, limits.panic_window_s), slot_length(limits)
    load, history = state.load.add(value, now, span_s, slot_s), state.history.add(value, now)
    return replace(
        state,
        at=now,
        # What only starts has had no chance to be busy.
        busy_at=now if value > 0 or signal.ready == 0 else state.busy_at,
        load=load,
        kv_used=state.kv_used if signal.kv_used is None else state.kv_used.add(signal.kv_used, now, span_s, slot_s),
        busy=state.busy if signal.busy is None else state.busy.add(signal.busy, now, span_s, slot_s),
        panicked_at=_panicked(load, state.panicked_at, limits, held, now),
        coming=_coming(signal, state.coming, held, now),
        history=history,
        floor=_floor(state, history, limits, now),
    )


def _panicked(load: Window, before: float | None, limits: AutoscalingSpec, held: int, now: float) -> float | None:
    """A burst is more than the present replicas are for by far, and those that start count as present."""
    burst = load.mean(now, limits.panic_window_s, slot_length(limits)) or 0.0
    if burst > limits.panic_factor * limits.target_queue_depth * max(held, 1):
        return now
    return before if before is not None and now - before < limits.window_s else None


def _coming(signal: Signal, coming: Coming | None, held: int, now: float) -> Coming | None:
    """Waiting starts again whenever one more is ready, or one that was ready is lost."""
    if signal.ready >= held:
        return None
    return coming if coming is not None and coming.ready == signal.ready else Coming(now, signal.ready)


def _floor(state: State, history: History, limits: AutoscalingSpec, now: float) -> Floor:
    """Looked at anew when an interval of the history is complete."""
    if not limits.predictive:
        return NO_FLOOR
    return state.floor if history.short is state.history.short else floor(history, limits, now)


def _need(signal: Signal, state: State, limits: AutoscalingSpec, held: int, now: float) -> Need:
    """The policy's, corrected for sleep and for replicas that never come."""
    if held == 0:
        # Only what waits now wakes it: windows still remember the requests before it went to sleep.
        waiting = signal.load or 0.0
        replicas = math.ceil(waiting / limits.target_queue_depth)
        return Need(replicas, replicas, f"{waiting:.1f} requests wait for it to wake" if waiting else "no request")
    need = NEEDS[limits.policy](signal, state, limits, now)
    lost = need.least - signal.ready
    if state.coming is None or lost <= 0 or now - state.coming.since <= limits.start_up_deadline_s:
        return need
    reason = f"{need.reason}; {lost} not ready after {limits.start_up_deadline_s:g} s, so others are asked for"
    return Need(need.least + lost, need.stay + lost, reason)
