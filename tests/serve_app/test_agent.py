"""What a site says of itself, from what Serve and its engines say."""

import time

import pytest
from fastapi import HTTPException
from pydantic import ValidationError
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from autoscaling.ray_notes import Word
from clusters.state import Bounds, BoundsOrder, DrainOrder, EngineSample, Held, Readiness, SiteState
from serve_app.agent import SiteAgent, placement_state
from serve_app.site_args import AgentAppArgs, AgentPlacement

PLACEMENT = AgentPlacement(model="m", release="0" * 12, capacity=8)


def test_loads_are_summed_and_kv_use_is_averaged() -> None:
    samples = [
        EngineSample(replica="a", running=3, waiting=1, kv_usage=0.2),
        EngineSample(replica="b", running=1, waiting=0, kv_usage=0.4),
    ]
    state = placement_state(PLACEMENT, _application(ApplicationStatus.RUNNING, {"RUNNING": 2, "STARTING": 1}), samples)
    assert (state.running, state.waiting, state.replicas, state.target_replicas) == (4, 1, 2, 3)
    assert state.kv_usage == pytest.approx(0.3)
    assert state.readiness is Readiness.READY


def test_replicas_on_a_node_that_drains_answer_and_are_leaving() -> None:
    draining = _application(
        ApplicationStatus.RUNNING, {"RUNNING": 3, "PENDING_MIGRATION": 1, "STARTING": 1, "STOPPING": 2}
    )
    state = placement_state(PLACEMENT, draining, [])
    assert (state.replicas, state.leaving, state.target_replicas) == (4, 1, 4)
    alone = placement_state(PLACEMENT, _application(ApplicationStatus.RUNNING, {"PENDING_MIGRATION": 1}), [])
    assert (alone.readiness, alone.replicas, alone.leaving) == (Readiness.READY, 1, 1)


def test_replicas_answer_while_a_new_controller_finds_them_again() -> None:
    state = placement_state(PLACEMENT, _application(ApplicationStatus.DEPLOYING, {"RECOVERING": 3}), [])
    assert (state.readiness, state.replicas) == (Readiness.READY, 3)


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


def test_a_placement_of_which_no_replica_is_wanted_sleeps() -> None:
    nothing = _application(ApplicationStatus.RUNNING, {})
    state = placement_state(PLACEMENT, nothing, [], Word(0, "down 1 to 0: no request for 600 s", at=0))
    assert (state.readiness, state.target_replicas, state.reason) == (
        Readiness.ASLEEP,
        0,
        "down 1 to 0: no request for 600 s",
    )
    woken = placement_state(PLACEMENT, nothing, [], Word(1, "up 0 to 1", at=0))
    assert (woken.readiness, woken.target_replicas) == (Readiness.STARTING, 1)
    going = placement_state(PLACEMENT, _application(ApplicationStatus.RUNNING, {"RUNNING": 1}), [], Word(0, "", at=0))
    assert going.readiness is Readiness.READY, "as long as one answers"


def test_without_a_word_of_the_autoscaler_nothing_is_known_to_sleep() -> None:
    state = placement_state(PLACEMENT, _application(ApplicationStatus.DEPLOYING, {}), [])
    assert state.readiness is Readiness.STARTING


async def test_an_ingress_tells_what_it_holds_and_gets_the_state() -> None:
    agent = _agent()
    assert (await agent.state()).placements[0].held is None
    state = _as_read(await agent.hear(Held(ingress="a", held={"m": 2})))
    assert state.placements[0].held == 2


async def test_the_planners_bounds_are_in_the_state_and_an_older_planner_is_refused() -> None:
    agent = _agent()
    bounds = Bounds(model="m", min_replicas=2, reason="the other site is away")
    state = _as_read(await agent.bind(BoundsOrder(started_at=2, lifetime_s=60, bounds=(bounds,))))
    assert state.placements[0].bounds == bounds
    with pytest.raises(HTTPException) as refused:
        await agent.bind(BoundsOrder(started_at=1, lifetime_s=60, bounds=()))
    assert refused.value.status_code == 409


async def test_of_several_ends_of_a_node_the_earliest_counts() -> None:
    agent, soon = _agent(), time.time() + 10
    for ends_at in (soon + 20, soon, soon + 30):
        await agent.notice({"node": "doomed", "pool": "spot", "ends_at": ends_at, "message": "preempted"})
    assert [notice.ends_at for notice in _as_read(await agent.state()).notices] == [soon]


async def test_a_node_whose_clock_is_wrong_is_believed_that_it_goes() -> None:
    agent = _agent()
    told = {"node": "doomed", "pool": "spot", "ends_at": time.time() - 900, "message": "terminate"}
    await agent.notice(told)
    assert [notice.node for notice in (await agent.state()).notices] == ["doomed"]
    await agent.notice({**told, "node": "late", "ends_in_s": 60.0})
    assert (await agent.state()).notices[1].ends_at == pytest.approx(time.time() + 60, abs=20)


async def test_what_is_not_known_is_not_down() -> None:
    new = SiteAgent(AgentAppArgs(site="east", token_variable="TOKEN", placements=(PLACEMENT,)))
    with pytest.raises(HTTPException) as unknown:
        await new.state()
    assert unknown.value.status_code == 503
    new.see({})
    with pytest.raises(HTTPException):
        await new.state()
    known = _agent()
    known.see({"m": _application(ApplicationStatus.RUNNING, {"RUNNING": 2})})
    known.see({})
    assert (await known.state()).placements[0].replicas == 2, "no controller is no news"


async def test_since_when_a_placement_is_as_it_is_stays_the_same() -> None:
    agent = _agent()
    first = (await agent.state()).placements[0].since
    assert first is not None
    assert (await agent.state()).placements[0].since == pytest.approx(first, abs=1)


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
    agent = SiteAgent(AgentAppArgs(site="east", token_variable="TOKEN", placements=(PLACEMENT,)))
    agent.see({"fleet-agent": _application(ApplicationStatus.RUNNING, {})})
    return agent


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
