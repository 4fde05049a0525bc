"""Gives Ray Serve's autoscaler our decision. Ray ships this module by value to its controller, so it stays thin."""

import logging
from typing import Any

from ray.serve.config import AutoscalingContext

from autoscaling.policy import Limits, Need, State, decide
from autoscaling.signals import Sample, queue_depth

DEPTH_METRIC = "queue_depth"
"""The key under which an engine replica's `record_autoscaling_stats` reports running plus waiting requests."""


class QueueDepthPolicy:
    """Ray Serve autoscaling policy: constructed once per deployment, called at each control-loop tick."""

    def __init__(
        self,
        min_replicas: int,
        max_replicas: int,
        target_queue_depth: float,
        window_s: float,
        scale_down_delay_s: float,
    ):
        self._limits = Limits(min_replicas, max_replicas, target_queue_depth, scale_down_delay_s)
        self._window_s = window_s

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        now = ctx.current_time or 0.0
        series = (ctx.raw_metrics or {}).get(DEPTH_METRIC, {})
        replicas = [[Sample(point.timestamp, point.value) for point in points] for points in series.values()]
        state = State(tuple(Need(*need) for need in ctx.policy_state.get("needs", ())))
        decision = decide(queue_depth(replicas, now, self._window_s), state, self._limits, ctx.target_num_replicas, now)
        if decision.target != ctx.target_num_replicas:
            logging.getLogger("ray.serve").info("rayfleet scales %s: %s", ctx.deployment_name, decision.reason)
        return decision.target, {"needs": [(need.at, need.replicas) for need in decision.state.needs]}
