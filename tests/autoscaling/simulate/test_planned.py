"""The planner inside a simulation."""

from autoscaling.simulate.controllers import Rayfleet
from autoscaling.simulate.outcome import End
from autoscaling.simulate.planned import Planned, can_plan
from autoscaling.simulate.ports import PlacementReading, ReplicaReading
from autoscaling.simulate.traces import Request
from clusters.routing import Preset
from clusters.scaling import AutoscalingSpec
from clusters.spec import FleetSpec
from tests.autoscaling.simulate.fleets import fleet, run


def three_sites() -> FleetSpec:
    spec = fleet("a", "b", "c")
    return spec.model_copy(update={"routing": spec.routing.model_copy(update={"policy": Preset.BALANCED})})


def test_requests_are_served_under_the_planner_and_twice_alike() -> None:
    spec = three_sites()
    requests = [
        Request(at=index / (2 if index < 120 else 8), model="m", prompt_tokens=200, output_tokens=200)
        for index in range(1500)
    ]
    requests.sort(key=lambda request: request.at)
    outcome = run(spec, requests, {"a": 1, "b": 1, "c": 1}, Planned(spec))
    assert {served.end for served in outcome.served} == {End.OK}
    again = run(spec, requests, {"a": 1, "b": 1, "c": 1}, Planned(spec))
    assert again.changes == outcome.changes


def test_a_planner_needs_two_sites_of_a_model_and_to_be_enabled() -> None:
    spec = fleet("a", "b")
    off = spec.model_copy(update={"planner": spec.planner.model_copy(update={"enabled": False})})
    assert can_plan(spec)
    assert not can_plan(fleet("a"))
    assert not can_plan(off)


def reading(site: str, replicas: int, running: int, answers: bool = True) -> PlacementReading:
    each = tuple(ReplicaReading(f"{site}{n}", running, 0, 0.1, 0.5) for n in range(replicas))
    return PlacementReading((site, "m"), each, replicas, 0, 0, 0, 0, answers)


def test_what_a_silent_site_served_is_planned_for_elsewhere() -> None:
    """Before its requests come: here nobody sends them on."""
    planned, alone = Planned(fleet("a", "b")), Rayfleet(dict.fromkeys((("a", "m"), ("b", "m")), AutoscalingSpec()))
    for at in range(60):
        before = planned.targets([reading("a", 3, 8), reading("b", 1, 0)], float(at))
    assert before["b", "m"].replicas == 1
    for at in range(60, 90):
        silent = [reading("a", 3, 0, answers=False), reading("b", 1, 0)]
        after, by_itself = planned.targets(silent, float(at)), alone.targets(silent, float(at))
    assert after["b", "m"].replicas == 3, "the load that is known of is for three, and b has no other replica"
    assert by_itself["b", "m"].replicas == 1


def test_bounds_end_at_a_site_that_hears_no_more_of_them() -> None:
    planned = Planned(fleet("a", "b"))
    replicas, most = 1, 1
    for at in range(600):
        readings = [
            reading("a", 3, 8 if at < 60 else 0, answers=at < 60),
            reading("b", replicas, 0, answers=at < 90),
        ]
        replicas = planned.targets(readings, float(at))["b", "m"].replicas
        most = max(most, replicas)
    assert (most, replicas) == (3, 1)
