"""Reads a placement's load out of what Ray Serve's controller has from its replicas."""

from typing import Any

from ray.serve.config import AutoscalingContext

from autoscaling.ray_notes import Order
from autoscaling.signals import Reading, Signal, combine

RUNNING_METRIC = "running"
WAITING_METRIC = "waiting"
KV_METRIC = "kv_usage"
GPU_METRIC = "gpu_utilisation"
"""The keys under which replicas report through `record_autoscaling_stats`; all but the first may be left out."""


def signal_of(ctx: AutoscalingContext, order: Order | None, now: float, max_age_s: float) -> Signal:
    """Held are requests at the ingress, by the agent's order, and in Serve's own handles."""
    queued = float(ctx.total_queued_requests or 0.0)
    told = None if order is None else order.held
    held = (told or 0.0) + queued if told is not None or queued else None
    return combine(_readings(ctx.raw_metrics or {}), held, ctx.current_num_replicas, now, max_age_s)


def _readings(series: dict[str, dict[Any, Any]]) -> list[Reading]:
    """Each replica's latest report."""
    latest = {name: {replica: points[-1] for replica, points in of.items() if points} for name, of in series.items()}

    def value(name: str, replica: Any) -> float | None:
        point = latest.get(name, {}).get(replica)
        return None if point is None else point.value

    return [
        Reading(
            point.timestamp,
            point.value,
            waiting=value(WAITING_METRIC, replica) or 0.0,
            kv_usage=value(KV_METRIC, replica),
            gpu_utilisation=value(GPU_METRIC, replica),
        )
        for replica, point in latest.get(RUNNING_METRIC, {}).items()
    ]
