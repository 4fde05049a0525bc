"""`rayfleet route`, `drain` and `status`, as a shell sees them, against a real gateway in front of fake sites."""

import hashlib
import io
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from clusters.launch.processes import free_port
from clusters.spec import FleetSpec, KeySpec
from serve_app import cli
from tests.fakes.site import RESET, FakeSite
from tests.serve_app.conftest import KEY, Endpoint, fleet_spec, serving
from tests.serve_app.waiting import wait_for

HELLO: Any = [{"role": "user", "content": "hello"}]
WORD = "wonderful "
GUEST = "sk-guest"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Rayfleet = Callable[..., Ran]


@pytest.fixture
def rayfleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rayfleet:
    """The whole command. `at` is a running gateway, or a URL."""

    def run(*arguments: str, at: Endpoint | str, key: str = KEY) -> Ran:
        url = at if isinstance(at, str) else at.url
        monkeypatch.setenv("RAYFLEET_API_KEY", key)
        monkeypatch.setattr(sys, "argv", ["rayfleet", *arguments, "--endpoint", url])
        with pytest.raises(SystemExit) as ended:
            cli.app()
        return Ran(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def spec(sites: list[FakeSite]) -> FleetSpec:
    return fleet_spec(sites)


def status_of(endpoint: Endpoint, site: str, rayfleet: Rayfleet) -> Any:
    told = json.loads(rayfleet("status", "--json", at=endpoint).out)
    return next(each for each in told if each["site"] == site)


# route


def test_route_names_the_place_and_sends_nothing(
    spec: FleetSpec, sites: list[FakeSite], rayfleet: Rayfleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites[0].running, sites[2].running = 6, 6
    with serving(spec) as endpoint:
        wait_for(lambda: status_of(endpoint, "north", rayfleet)["placements"][0]["running"] == 6)
        ran = rayfleet("route", "chat", "--prompt", "hello", "--policy", "least_loaded", at=endpoint)
        assert (ran.code, ran.out, ran.err) == (0, "west\n", "")
        body = json.dumps({"model": "chat", "prompt": "hello"})
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body.encode())))
        ran = rayfleet("route", "--body", "-", "--route", "/v1/completions", at=endpoint)
        assert ran.out.strip() in {site.name for site in sites}
    assert not any(site.requests for site in sites)


def test_explain_shows_every_place_with_its_terms_or_with_what_speaks_against_it(
    spec: FleetSpec, sites: list[FakeSite], rayfleet: Rayfleet
) -> None:
    sites[1].readiness = "starting"
    with serving(spec) as endpoint:
        ran = rayfleet("route", "chat", "--prompt", WORD * 40, "--stream", "--explain", at=endpoint)
    assert ran.code == 0
    assert "chat: chat, streamed; 1" in ran.out
    assert "by the policy balanced" in ran.out
    for terms in (("tokens", "saved", "egress", "late", "total", "score"), ("TTFT", "round trip", "queue", "prefill")):
        assert [line for line in ran.out.splitlines() if all(term in line for term in ("place", *terms))]
    lines = ran.out.splitlines()
    for site in ("east", "north"):
        dollars, seconds = [line for line in lines if f" {site} " in line and "by the policy" not in line]
        assert dollars.count("→") == seconds.count("→") == (f"{site}, by the policy" in ran.out)
        assert "0 for 8 slots" in seconds
    (rejected,) = [line for line in lines if "west" in line]
    assert "chat is starting" in rejected


def test_explain_as_json_is_what_the_ingress_said(spec: FleetSpec, rayfleet: Rayfleet) -> None:
    with serving(spec) as endpoint:
        ran = rayfleet("route", "chat", "--max-tokens", "5", "--explain", "--json", at=endpoint)
    told = json.loads(ran.out)
    assert told["target"] in {place["name"] for place in told["considered"]}
    assert told["request"]["expected_output_tokens"] == 5


def test_no_place_is_a_failure_that_says_why(spec: FleetSpec, rayfleet: Rayfleet) -> None:
    with serving(spec) as endpoint:
        ran = rayfleet("route", "chat", "--jurisdiction", "eu,us", at=endpoint)
        assert (ran.code, ran.out) == (1, "")
        assert "east: processes data in ch; the request may be processed in: eu, us" in ran.err
        ran = rayfleet("route", "chat", "--jurisdiction", "eu", "--explain", at=endpoint)
        assert ran.code == 1
        assert "No place may serve it." in ran.out
        assert rayfleet("route", "chat", "--jurisdiction", "eu", "--json", at=endpoint).code == 1


def test_a_session_goes_where_it_was(spec: FleetSpec, sites: list[FakeSite], rayfleet: Rayfleet) -> None:
    with serving(spec) as endpoint:
        headers = {"x-rayfleet-session": "mine", "x-rayfleet-site-only": "north"}
        messages: Any = [{"role": "user", "content": WORD * 100}]
        endpoint.client().chat.completions.create(model="chat", messages=messages, extra_headers=headers)
        told = json.loads(rayfleet("route", "chat", "--session", "mine", "--prompt", WORD, "--json", at=endpoint).out)
    cached = {place["name"]: place["cached_tokens"] for place in told["considered"]}
    assert cached["north"] > 0 == cached["east"] == cached["west"]


def test_the_choice_for_an_earlier_request_is_shown_by_its_id(spec: FleetSpec, rayfleet: Rayfleet) -> None:
    with serving(spec) as endpoint:
        headers = {"x-request-id": "the-one", "x-rayfleet-site-only": "west"}
        endpoint.client().chat.completions.create(model="chat", messages=HELLO, extra_headers=headers)
        ran = rayfleet("route", "--request", "the-one", at=endpoint)
        assert (ran.code, ran.out) == (0, "west\n")
        ran = rayfleet("route", "--request", "another/one", at=endpoint)
        assert ran.code == 1
        assert "status 404" in ran.err


def test_wrong_uses_of_route_are_told(spec: FleetSpec, rayfleet: Rayfleet, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("[]")
    with serving(spec) as endpoint:
        assert rayfleet("route", at=endpoint).code == 2
        assert rayfleet("route", "chat", "--body", str(body), at=endpoint).code == 2
        assert rayfleet("route", "chat", "--route", "/v1/score", at=endpoint).code == 2
        refused = {
            "The request body must be a JSON object.": ("--body", str(body)),
            "The fleet has no routing policy 'clever'.": ("chat", "--policy", "clever"),
            "The model 'none' does not exist": ("none",),
            "There is no inference route '/v1/none'.": ("--body", str(body), "--route", "/v1/none"),
        }
        for message, arguments in refused.items():
            ran = rayfleet("route", *arguments, at=endpoint)
            assert (ran.code, ran.out) == (1, "")
            assert message in ran.err


# drain and status


def test_a_drained_site_gets_nothing_until_the_draining_ends(
    spec: FleetSpec, sites: list[FakeSite], rayfleet: Rayfleet
) -> None:
    with serving(spec) as endpoint:
        ran = rayfleet("drain", "east", "--deadline", "600", at=endpoint)
        assert ran.code == 0
        assert "east takes no new requests" in ran.out
        wait_for(lambda: status_of(endpoint, "east", rayfleet)["draining"])
        shown = rayfleet("status", at=endpoint).out
        assert shown.count("draining") == 1
        assert sum("│ 0% " in line for line in shown.splitlines()) == 2, "both of its models"
        refused = rayfleet("route", "chat", "--explain", at=endpoint).out
        assert any("east" in line and "draining" in line for line in refused.splitlines())

        ran = rayfleet("drain", "east", "--off", at=endpoint)
        assert ran.out == "east takes requests again\n"
        wait_for(lambda: not status_of(endpoint, "east", rayfleet)["draining"])
    assert sites[0].drained_at is None


def test_drain_waits_until_the_site_has_nothing_left(
    spec: FleetSpec, sites: list[FakeSite], rayfleet: Rayfleet
) -> None:
    sites[0].running = 3  # for each of its two models
    finishing = threading.Thread(target=_finish, args=(sites[0],))
    with serving(spec) as endpoint:
        wait_for(lambda: status_of(endpoint, "east", rayfleet)["placements"][0]["running"] == 3)
        finishing.start()
        ran = rayfleet("drain", "east", "--wait", at=endpoint)
    finishing.join()
    assert ran.code == 0
    assert "draining east: 6 requests there" in ran.out
    assert "draining east: 0 requests there" in ran.out
    assert "draining east: done" in ran.out


def _finish(site: FakeSite) -> None:
    """As soon as it has been seen draining."""
    wait_for(lambda: site.drained_at is not None)
    threading.Event().wait(1)
    site.running = 0


def test_what_must_not_be_drained_is_told(spec: FleetSpec, rayfleet: Rayfleet) -> None:
    guest = KeySpec(name="guest", sha256=hashlib.sha256(GUEST.encode()).hexdigest())
    with serving(spec.model_copy(update={"keys": (*spec.keys, guest)})) as endpoint:
        ran = rayfleet("drain", "moon", at=endpoint)
        assert ran.code == 1
        assert "The fleet has no site 'moon'." in ran.err
        ran = rayfleet("drain", "east", at=endpoint, key=GUEST)
        assert ran.code == 1
        assert "Only keys with `operator: true` may drain sites." in ran.err
        assert rayfleet("drain", "east", "--off", "--wait", at=endpoint).code == 2
        assert rayfleet("drain", "east", "--deadline", "-1", at=endpoint).code == 2
        assert not status_of(endpoint, "east", rayfleet)["draining"]


def test_a_site_that_cannot_be_told_to_drain_is_named(
    spec: FleetSpec, sites: list[FakeSite], rayfleet: Rayfleet
) -> None:
    with serving(spec) as endpoint:
        sites[0].stop()
        ran = rayfleet("drain", "east", at=endpoint)
        sites[0].start()
    assert ran.code == 1
    assert "the agent of east can't be reached" in ran.err


def test_status_shows_what_is_ejected_and_what_comes_back(sites: list[FakeSite], rayfleet: Rayfleet) -> None:
    health = {"consecutive_errors": 1, "ejection_s": 2, "ramp_s": 600}
    with serving(fleet_spec(sites, health=health)) as endpoint:
        sites[1].plan(RESET)
        at_west = {"x-rayfleet-site-only": "west"}
        with pytest.raises(openai.APIStatusError):
            endpoint.client().chat.completions.create(model="chat", messages=HELLO, extra_headers=at_west)
        assert "0%: ejected" in rayfleet("status", at=endpoint).out
        wait_for(lambda: "the next request decides" in str(status_of(endpoint, "west", rayfleet)["ejected"]))
        endpoint.client().chat.completions.create(model="chat", messages=HELLO, extra_headers=at_west)
        assert "10%" in rayfleet("status", at=endpoint).out


def test_an_ingress_that_does_not_answer_or_refuses_is_told_from_a_traceback(
    spec: FleetSpec, sites: list[FakeSite], rayfleet: Rayfleet
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for command in (("status",), ("route", "chat"), ("drain", "east")):
        ran = rayfleet(*command, at=nowhere)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"rayfleet: {nowhere} does not answer as an ingress")
    assert rayfleet("status", at="nonsense").code == 1
    with serving(spec) as endpoint:
        ran = rayfleet("status", at=endpoint, key="sk-wrong")
        assert (ran.code, ran.out) == (1, "")
        assert "status 401: Incorrect API key provided." in ran.err
