"""The planner's bounds around a placement's own."""

from clusters.scaling import AutoscalingSpec


def narrowed(own: AutoscalingSpec, least: int | None, most: int | None, current: int) -> AutoscalingSpec:
    """`least` and `most` are the planner's, None where it sets none, and `current` is the present target, all in
    replicas. They widen nothing. A ceiling from before a load came takes nothing back that was asked for meanwhile."""
    low = min(max(least or 0, own.min_replicas), own.max_replicas)
    high = own.max_replicas if most is None else min(max(most, current, low), own.max_replicas)
    return own.model_copy(update={"min_replicas": low, "max_replicas": high})
