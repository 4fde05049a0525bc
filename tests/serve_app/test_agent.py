"""What a site says of itself, from what Serve and its engines say."""

import pytest
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from clusters.state import EngineSample, Readiness
from serve_app.agent import placement_state
from serve_app.site_args import AgentPlacement

PLACEMENT = AgentPlacement(model="m", release="0" * 12, capacity=8)


def test_loads_are_summed_and_kv_use_is_averaged() -> None:
    samples = [
        EngineSample(replica="a", running=3, waiting=1, kv_usage=0.2, at=0),
        EngineSample(replica="b", running=1, waiting=0, kv_usage=0.4, at=0),
    ]
    state = placement_state(PLACEMENT, _application(ApplicationStatus.RUNNING, {"RUNNING": 2, "STARTING": 1}), samples)
    assert (state.running, state.waiting, state.replicas, state.target_replicas) == (4, 1, 2, 3)
    assert state.kv_usage == pytest.approx(0.3)
    assert state.readiness is Readiness.READY


def test_silence_is_not_zero() -> None:
    state = placement_state(PLACEMENT, _application(ApplicationStatus.RUNNING, {"RUNNING": 1}), [])
    assert (state.running, state.waiting, state.kv_usage) == (None, None, None)


@pytest.mark.parametrize(
    ("status", "replicas", "readiness"),
    [
        (ApplicationStatus.DEPLOYING, {"STARTING": 1}, Readiness.STARTING),
        (ApplicationStatus.DEPLOYING, {"RUNNING": 1, "STARTING": 1}, Readiness.READY),
        (ApplicationStatus.DEPLOY_FAILED, {}, Readiness.FAILED),
        (ApplicationStatus.UNHEALTHY, {"RUNNING": 1}, Readiness.READY),
    ],
)
def test_readiness_follows_the_replicas_that_answer(
    status: ApplicationStatus, replicas: dict[str, int], readiness: Readiness
) -> None:
    assert placement_state(PLACEMENT, _application(status, replicas), []).readiness is readiness


def test_an_application_that_is_not_deployed_is_starting() -> None:
    state = placement_state(PLACEMENT, None, [])
    assert (state.readiness, state.message) == (Readiness.STARTING, "not deployed")


def _application(status: ApplicationStatus, replicas: dict[str, int]) -> ApplicationStatusOverview:
    return ApplicationStatusOverview(
        status=status,
        message="",
        last_deployed_time_s=0,
        deployments={
            "LLMRouter": DeploymentStatusOverview("HEALTHY", "UNSPECIFIED", {"RUNNING": 7}, ""),
            "EngineServer:m": DeploymentStatusOverview("HEALTHY", "UNSPECIFIED", replicas, ""),
        },
    )
