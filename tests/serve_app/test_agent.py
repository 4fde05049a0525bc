"""What a site says of itself, from what Serve and its engines say."""

import pytest
from pydantic import ValidationError
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from clusters.state import DrainOrder, EngineSample, Readiness, SiteState
from serve_app.agent import SiteAgent, placement_state
from serve_app.site_args import AgentAppArgs, AgentPlacement

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


async def test_a_site_drains_from_the_order_on_and_says_for_how_long_streams_may_stay() -> None:
    agent = _agent()
    assert (await agent.state()).drain_s is None
    ordered = await agent.drain(DrainOrder(deadline_s=600))
    later = _as_read(await agent.state())
    assert ordered.drain_s is not None
    assert later.drain_s is not None
    assert 500 < later.drain_s <= ordered.drain_s <= 600
    assert later.placement("m") is not None, "what it still serves is told"


async def test_a_drain_whose_deadline_has_passed_goes_on() -> None:
    agent = _agent()
    await agent.drain(DrainOrder(deadline_s=0))
    assert (await agent.state()).drain_s == 0


async def test_a_later_order_takes_the_place_of_an_earlier_one() -> None:
    agent = _agent()
    await agent.drain(DrainOrder(deadline_s=0))
    moved = await agent.drain(DrainOrder(deadline_s=600))
    assert moved.drain_s is not None
    assert moved.drain_s > 500
    assert _as_read(await agent.drain(DrainOrder(deadline_s=None))).drain_s is None


@pytest.mark.parametrize("order", ["{}", '{"deadline_s": -1}', '{"deadline_s": "soon"}', "[]"])
def test_an_order_without_a_deadline_is_none(order: str) -> None:
    with pytest.raises(ValidationError):
        DrainOrder.model_validate_json(order)


def _agent() -> SiteAgent:
    return SiteAgent(AgentAppArgs(site="east", token_variable="TOKEN", placements=(PLACEMENT,)))


def _as_read(state: SiteState) -> SiteState:
    """At the other end of the wire."""
    return SiteState.model_validate_json(state.model_dump_json())


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
