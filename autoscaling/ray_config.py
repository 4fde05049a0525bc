"""Ray Serve's `autoscaling_config` for a deployment whose settings never change but with its replicas."""

from typing import Any

from clusters.render import ray_autoscaling
from clusters.scaling import AutoscalingSpec


def autoscaling_config(scaling: AutoscalingSpec) -> dict[str, Any]:
    config = ray_autoscaling(scaling)
    return config | {"policy": config["policy"] | {"policy_kwargs": scaling.model_dump(mode="json")}}
