"""Gives Ray Serve's autoscaler our decision. Ray ships this module by value to its controller, so it stays thin."""

import logging
import time
from typing import Any

from ray.serve.config import AutoscalingContext

from autoscaling import ray_notes
from autoscaling.bounds import narrowed
from autoscaling.forecast import History
from autoscaling.policy import decide
from autoscaling.ray_notes import ORDER_LIFETIME_S, Order, Renewed, Word
from autoscaling.ray_signals import signal_of
from autoscaling.state import State, from_plain, plain
from clusters.scaling import AutoscalingSpec

STATE = "rayfleet"
"""Our key in Ray's `policy_state`, where Ray keeps some of its own."""
NOTES_S = 0.5
"""Seconds between two looks at notes. Ray asks for a decision several times as often."""


class ReplicaPolicy:
    """Ray Serve autoscaling policy: constructed once per deployment, called at each control-loop tick."""

    def __init__(self, **settings: Any):
        """Without settings, those count that are left in a note."""
        self._spec = AutoscalingSpec(**settings)
        self._comes_with_settings = self._has_settings = bool(settings)
        self._orders = Renewed[Order](ORDER_LIFETIME_S)
        self._noted_at: float | None = None

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        now, application = ctx.current_time or 0.0, ctx.app_name or ctx.deployment_name
        noting = time.monotonic()
        notes_due = self._noted_at is None or noting - self._noted_at >= NOTES_S
        if notes_due:
            self._noted_at = noting
            self._read_notes(application, noting)
        if not self._has_settings:
            return ctx.target_num_replicas, ctx.policy_state
        order, current = self._orders.current(noting), _present_target(ctx, application)
        kept = ctx.policy_state.get(STATE)
        state = from_plain(kept) if kept else State(history=ray_notes.read(application, History) or History())
        decision = decide(
            signal_of(ctx, order, now, self._spec.signal_max_age_s),
            state,
            self._bounded(ctx, order, current),
            current,
            now,
        )
        if decision.target != ctx.target_num_replicas:
            logging.getLogger("ray.serve").info("rayfleet scales %s: %s", application, decision.reason)
        if notes_due or decision.target != ctx.target_num_replicas:
            ray_notes.write(application, Word(decision.target, decision.reason, now))
        if decision.state.history.long.end != state.history.long.end:
            ray_notes.write(application, decision.state.history)
        return decision.target, {STATE: plain(decision.state)}

    def _read_notes(self, application: str, now: float) -> None:
        self._orders.heed(ray_notes.read(application, Order), now)
        settings = None if self._comes_with_settings else ray_notes.read(application, AutoscalingSpec)
        if settings is not None:
            self._spec, self._has_settings = settings, True

    def _bounded(self, ctx: AutoscalingContext, order: Order | None, current: int) -> AutoscalingSpec:
        """Ray lowers the bounds of `fleet.yaml` while it rolls an application out."""
        least, most = ctx.capacity_adjusted_min_replicas, ctx.capacity_adjusted_max_replicas
        own = self._spec.model_copy(update={"min_replicas": least, "max_replicas": most})
        return own if order is None else narrowed(own, order.min_replicas, order.max_replicas, current)


def _present_target(ctx: AutoscalingContext, application: str) -> int:
    """A placement that may sleep begins awake, which shows that it can serve. Ray forgets the state with every deploy,
    but not our words."""
    begins = not (ctx.target_num_replicas or ctx.policy_state.get(STATE) or ray_notes.read(application, Word))
    return 1 if begins else ctx.target_num_replicas
