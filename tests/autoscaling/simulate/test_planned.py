"""The planner inside a simulation."""

from autoscaling.simulate.outcome import End
from autoscaling.simulate.planned import Planned
from autoscaling.simulate.traces import Request
from clusters.routing import Preset
from tests.autoscaling.simulate.fleets import fleet, run


def test_requests_are_served_under_the_planner_and_twice_alike() -> None:
    spec = fleet("a", "b", "c")
    spec = spec.model_copy(update={"routing": spec.routing.model_copy(update={"policy": Preset.BALANCED})})
    requests = [
        Request(at=index / (2 if index < 120 else 8), model="m", prompt_tokens=200, output_tokens=200)
        for index in range(1500)
    ]
    requests.sort(key=lambda request: request.at)
    outcome = run(spec, requests, {"a": 1, "b": 1, "c": 1}, Planned(spec))
    assert {served.end for served in outcome.served} == {End.OK}
    again = run(spec, requests, {"a": 1, "b": 1, "c": 1}, Planned(spec))
    assert again.changes == outcome.changes
