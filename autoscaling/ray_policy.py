"""Gives Ray Serve's autoscaler our decision. Ray ships this module by value to its controller, so it stays thin."""

import logging
from typing import Any

from ray.serve.config import AutoscalingContext

from autoscaling import ray_notes
from autoscaling.forecast import History
from autoscaling.policy import decide
from autoscaling.ray_notes import Order, Word
from autoscaling.ray_signals import signal_of
from autoscaling.state import State, from_plain, plain
from clusters.scaling import AutoscalingSpec

STATE = "rayfleet"
"""Our key in Ray's `policy_state`, where Ray keeps some of its own."""
NOTES_S = 0.5
"""Seconds between two looks at the agent's orders. Ray asks for a decision several times as often."""


class ReplicaPolicy:
    """Ray Serve autoscaling policy: constructed once per deployment, called at each control-loop tick."""

    def __init__(self, **settings: Any):
        self._spec = AutoscalingSpec(**settings)
        self._order: Order | None = None
        self._noted_at: float | None = None

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        now, application = ctx.current_time or 0.0, ctx.app_name or ctx.deployment_name
        notes_due = self._noted_at is None or not 0 <= now - self._noted_at < NOTES_S
        if notes_due:
            self._noted_at, self._order = now, ray_notes.read(application, Order)
        order = self._order if self._order is not None and now <= self._order.until else None
        kept = ctx.policy_state.get(STATE)
        state = from_plain(kept) if kept else State(history=ray_notes.read(application, History) or History())
        decision = decide(
            signal_of(ctx, order, now, self._spec.signal_max_age_s),
            state,
            self._bounded(ctx, order),
            ctx.target_num_replicas,
            now,
        )
        if decision.target != ctx.target_num_replicas:
            logging.getLogger("ray.serve").info("rayfleet scales %s: %s", application, decision.reason)
        if notes_due or decision.target != ctx.target_num_replicas:
            ray_notes.write(application, Word(decision.target, decision.reason, now))
        if decision.state.history.long.end != state.history.long.end:
            ray_notes.write(application, decision.state.history)
        return decision.target, {STATE: plain(decision.state)}

    def _bounded(self, ctx: AutoscalingContext, order: Order | None) -> AutoscalingSpec:
        """The planner narrows the bounds of `fleet.yaml`. Ray lowers them, too, while it rolls an application out."""
        least, most = ctx.capacity_adjusted_min_replicas, ctx.capacity_adjusted_max_replicas
        if order is not None:
            least = min(max(order.min_replicas or 0, least), most)
            most = most if order.max_replicas is None else max(min(order.max_replicas, most), least)
        return self._spec.model_copy(update={"min_replicas": least, "max_replicas": most})
