"""The adapter, called as Ray Serve's controller calls it: with Ray's own context type."""

from typing import Any

from ray.serve._private.common import DeploymentID, TimeStampedValue
from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from autoscaling.ray_policy import DEPTH_METRIC

SETTINGS = {"min_replicas": 1, "max_replicas": 4, "target_queue_depth": 4, "window_s": 10, "scale_down_delay_s": 60}


def test_ray_can_ship_and_call_the_policy() -> None:
    shipped = AutoscalingPolicy(policy_function="autoscaling.ray_policy:QueueDepthPolicy", policy_kwargs=SETTINGS)
    policy = shipped.get_policy()(**shipped.policy_kwargs)
    target, state = policy(_context({"a": [TimeStampedValue(99, 9)], "b": [TimeStampedValue(99, 3)]}, {}))
    assert target == 3
    assert state == {"needs": [(100, 3)]}


def test_no_report_holds_the_target() -> None:
    policy = AutoscalingPolicy(
        policy_function="autoscaling.ray_policy:QueueDepthPolicy", policy_kwargs=SETTINGS
    ).get_policy()(**SETTINGS)
    assert policy(_context({}, {}))[0] == 2


def _context(series: dict[str, Any], state: dict[str, Any]) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=DeploymentID("EngineServer:demo-chat", "demo-chat"),
        deployment_name="EngineServer:demo-chat",
        app_name="demo-chat",
        current_num_replicas=2,
        target_num_replicas=2,
        running_replicas=[],
        total_num_requests=0,
        total_queued_requests=0,
        aggregated_metrics={},
        raw_metrics={DEPTH_METRIC: series},
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
        policy_state=state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=100,
        config=None,
    )
