"""Ray Serve's `autoscaling_config` for a deployment that our policy scales."""

from typing import Any

from clusters.scaling import AutoscalingSpec


def autoscaling_config(scaling: AutoscalingSpec) -> dict[str, Any]:
    return {
        "min_replicas": scaling.min_replicas,
        # A placement that may sleep begins awake, which shows that it can serve.
        "initial_replicas": max(scaling.min_replicas, 1),
        "max_replicas": scaling.max_replicas,
        "metrics_interval_s": 1,
        "look_back_period_s": max(scaling.signal_max_age_s, 2),
        # Ray delays a policy's decisions by its own damping too, 30 s and 600 s unless told: ours is enough.
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "policy": {
            "policy_function": "autoscaling.ray_policy:ReplicaPolicy",
            "policy_kwargs": scaling.model_dump(mode="json"),
        },
    }
