"""The adapter, called as Ray Serve's controller calls it: with Ray's own context type."""

import json
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from autoscaling.ray_config import autoscaling_config
from autoscaling.ray_notes import Order
from autoscaling.ray_policy import ReplicaPolicy
from autoscaling.ray_signals import KV_METRIC, RUNNING_METRIC, WAITING_METRIC, signal_of
from tests.autoscaling.driving import NOON, spec

SETTINGS = spec(max_replicas=8, scale_down_delay_s=60).model_dump(mode="json")


def test_ray_can_ship_and_call_the_policy() -> None:
    shipped = AutoscalingPolicy(policy_function="autoscaling.ray_policy:ReplicaPolicy", policy_kwargs=SETTINGS)
    policy = shipped.get_policy()(**shipped.policy_kwargs)
    target, state = policy(_context({RUNNING_METRIC: [9, 3], WAITING_METRIC: [1, 4]}))
    assert target == 5
    assert policy(_context({RUNNING_METRIC: [4, 4]}, json.loads(json.dumps(state)), target=5))[0] == 5


def test_no_report_holds_the_target() -> None:
    assert ReplicaPolicy(**SETTINGS)(_context({}))[0] == 2


def test_without_settings_nothing_changes() -> None:
    policy = ReplicaPolicy()
    assert policy(_context({RUNNING_METRIC: [99, 99]}, {"kept": 1})) == (2, {"kept": 1})
    assert policy(_context({}, target=0, least=0, queued=9))[0] == 0


def test_a_placement_that_may_sleep_begins_awake_and_is_not_woken_again() -> None:
    policy = ReplicaPolicy(**SETTINGS | {"min_replicas": 0})
    target, state = policy(_context({}, target=0, least=0))
    assert target == 1
    assert policy(_context({}, state, target=0, least=0))[0] == 0


@pytest.mark.parametrize(("least", "most"), [(0, 4), (1, 1), (2, 4)])
def test_ray_takes_the_config_and_damps_no_second_time(least: int, most: int) -> None:
    config = AutoscalingConfig(**autoscaling_config(spec(min_replicas=least, max_replicas=most)))
    # Ray would go back to initial replicas with every deploy.
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == (least, None, most)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (0, 0)


def test_through_ray_s_own_damping_a_placement_sleeps_and_wakes() -> None:
    limits = spec(min_replicas=0, scale_to_zero_delay_s=30, scale_down_delay_s=30)
    config = AutoscalingConfig(**autoscaling_config(limits))
    decide = _apply_autoscaling_config(config.policy.get_policy()(**config.policy.policy_kwargs))
    target, state, seen = 3, dict[str, Any](), []
    for second in range(300):
        reports = {RUNNING_METRIC: [0.0] * target, WAITING_METRIC: [0.0] * target}
        target, state = decide(_context(reports, state, target, NOON + second, config=config, least=0))
        seen.append(target)
    assert (seen[0], seen[-1]) == (3, 0)
    target, state = decide(_context({}, state, 0, NOON + 300, config=config, least=0, queued=1))
    assert target == 1


def test_an_engine_that_tells_only_its_depth_is_heard() -> None:
    seen = signal_of(_context({RUNNING_METRIC: [7, 2]}), None, NOON, 10)
    assert (seen.load, seen.ready, seen.reporting) == (9, 2, 2)


def test_the_kv_caches_and_what_is_held_are_in_the_signal() -> None:
    ctx = _context({RUNNING_METRIC: [7, 2], WAITING_METRIC: [0, 0], KV_METRIC: [0.9, 0.5]}, queued=2)
    seen = signal_of(ctx, Order(number=1, held=3), NOON, 10)
    assert seen.held == 5
    assert seen.kv_usage == pytest.approx(0.7)
    assert signal_of(_context({}), None, NOON, 10).held is None


@pytest.mark.parametrize(
    ("order", "bounds"),
    [
        (Order(number=1, min_replicas=3, max_replicas=5), (3, 5)),
        (Order(number=1, min_replicas=0, max_replicas=0), (1, 1)),
        (Order(number=1, min_replicas=99, max_replicas=99), (8, 8)),
        (Order(number=1, max_replicas=0, min_replicas=4), (4, 4)),
        (Order(number=1), (1, 8)),
        (None, (1, 8)),
    ],
)
def test_the_planner_narrows_the_bounds_and_never_widens_them(order: Order | None, bounds: tuple[int, int]) -> None:
    limits = ReplicaPolicy(**SETTINGS)._bounded(_context({}), order, 1)
    assert (limits.min_replicas, limits.max_replicas) == bounds


def _context(
    reports: dict[str, list[float]],
    state: dict[str, Any] | None = None,
    target: int = 2,
    now: float = NOON,
    *,
    config: AutoscalingConfig | None = None,
    least: int = 1,
    queued: float = 0,
) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=DeploymentID("EngineServer:demo-chat", "demo-chat"),
        deployment_name="EngineServer:demo-chat",
        app_name="demo-chat",
        current_num_replicas=target,
        target_num_replicas=target,
        running_replicas=[],
        total_num_requests=queued,
        total_queued_requests=queued,
        aggregated_metrics={},
        raw_metrics={
            name: {f"replica {i}": [TimeStampedValue(now - 1, value)] for i, value in enumerate(values)}
            for name, values in reports.items()
        },
        capacity_adjusted_min_replicas=least,
        capacity_adjusted_max_replicas=8,
        policy_state=state or {},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now,
        config=config,
    )
