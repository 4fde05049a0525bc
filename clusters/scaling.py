"""How the number of replicas follows the load: `autoscaling:` of a placement and `planner:` in `fleet.yaml`."""

from enum import StrEnum

from pydantic import Field

from clusters.fields import Spec


class ScalingPolicy(StrEnum):
    """What tells how many replicas a placement needs."""

    QUEUE_DEPTH = "queue_depth"
    """Requests running, waiting and held at the ingress, and how full the KV caches are."""
    UTILISATION = "utilisation"
    """How busy the GPUs are. For comparison: an engine with one request can look as busy as one with many."""


class AutoscalingSpec(Spec):
    """Bounds and damping of `autoscaling.policy`."""

    policy: ScalingPolicy = ScalingPolicy.QUEUE_DEPTH
    min_replicas: int = Field(1, ge=0, le=1000, description="0 lets the placement go to sleep and wake on a request")
    max_replicas: int = Field(1, ge=1, le=1000)
    target_queue_depth: float = Field(
        8, gt=0, description="requests running, waiting and held that one replica should have"
    )
    max_kv_usage: float = Field(0.9, gt=0, le=1, description="share of its KV cache that one replica should use")
    target_utilisation: float = Field(
        0.7, gt=0, le=1, description="policy utilisation: share of the time that one replica's GPUs should be busy"
    )
    window_s: float = Field(30, gt=0, le=3600, description="seconds of load that a decision averages")
    panic_window_s: float = Field(3, gt=0, le=3600, description="seconds averaged when a burst is over panic_factor")
    panic_factor: float = Field(1.5, ge=1, description="times the load that the present replicas are for")
    max_up_factor: float = Field(4, gt=1, description="most replicas, as a multiple of those that are ready")
    max_up_replicas: int = Field(16, ge=1, description="most replicas beyond those that are ready")
    max_down_factor: float = Field(2, gt=1, description="one step down leaves at least 1 / this of the replicas")
    max_down_replicas: int = Field(16, ge=1, description="most replicas that go in one step; one step per window_s")
    scale_down_delay_s: float = Field(300, ge=0, description="seconds that the need must stay lower before replicas go")
    scale_down_margin: float = Field(
        0.1, ge=0, lt=1, description="share of their target that the replicas which stay must have to spare"
    )
    scale_to_zero_delay_s: float = Field(
        600, ge=0, description="min_replicas 0: seconds without a request before the last replica goes"
    )
    signal_max_age_s: float = Field(10, gt=0, description="older readings of the load count as none")
    start_up_s: float = Field(120, ge=0, le=3600, description="seconds from asking for a replica to its first token")
    start_up_deadline_s: float = Field(
        900, gt=0, description="seconds after which starting replicas are no longer counted on"
    )
    predictive: bool = Field(
        True, description="be ready in time for what the trend and past days at this time foretell"
    )


class PlannerSpec(Spec):
    """What decides where a model's next replica goes, across sites. It runs beside the ingress."""

    enabled: bool = Field(True, description="whether bounds are set at the sites; without, each scales for itself")
    interval_s: float = Field(5, gt=0, le=60, description="seconds between two plans")
    lifetime_s: float = Field(
        30, gt=0, le=600, description="seconds that bounds count at a site which hears nothing more"
    )
    silent_s: float = Field(120, gt=0, le=3600, description="seconds that the load of a silent site is reckoned with")
