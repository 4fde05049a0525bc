"""Why a place may not serve a request, and what that means when none remains."""

from typing import Any

import pytest
from msgspec.structs import replace

from clusters.routing import HealthSpec, HoldSpec, RoutingSpec
from clusters.spec import ModelSpec, Task
from clusters.state import Observation
from serve_app.routing.facts import Facts
from tests.serve_app.routing.fleets import (
    FACTS,
    NOW,
    RELEASE,
    Desk,
    fleet,
    hosted,
    observation,
    placement,
    site,
    state,
)


def rejection(facts: Facts = FACTS, seen: Observation | None = None, **of_site: Any) -> str:
    """Of the only site."""
    return Desk(fleet(site("a", **of_site)), state(seen or observation("a"))).choose(facts).rejections["a"]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(FACTS, only_site="b"), "the request is for b only"),
        (replace(FACTS, task=Task.EMBEDDINGS), "serves m, but not for embeddings"),
        (replace(FACTS, model="x"), "does not serve x"),
        (replace(FACTS, tenant="u"), "does not serve this tenant"),
        (
            replace(FACTS, tenant="t", jurisdictions=frozenset({"eu", "ch"})),
            "processes data in us; the request may be processed in: ch, eu",
        ),
        (
            replace(FACTS, tenant="t", jurisdictions=frozenset()),
            "processes data in us; the request may be processed in: nowhere",
        ),
        (replace(FACTS, tenant="t", min_context=5000), "has a context of 4096 tokens, not 5000"),
    ],
)
def test_rules_reject_with_a_reason(facts: Facts, reason: str) -> None:
    assert rejection(facts, tenants=("t",)) == reason


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Observation(site="a", error="no connection"), "never observed: no connection"),
        (observation("a", age_s=7), "last observed 7.0 s ago"),
        (observation("a", drain_s=30), "draining"),
        (observation("a", drain_s=0), "draining"),
        (observation("a", model="other"), "does not report m"),
        (observation("a", release="ba9876543210"), f"serves release ba9876543210, not {RELEASE}"),
        (observation("a", readiness="failed", message="no memory"), "m is failed: no memory"),
        (observation("a", readiness="starting"), "m is starting"),
        (observation("a", replicas=0), "m has no replica that answers"),
        (observation("a", running=30, waiting=10), "full: 4.0 requests per slot"),
    ],
)
def test_the_moment_rejects_with_a_reason(seen: Observation, reason: str) -> None:
    assert rejection(seen=seen) == reason


def test_a_site_without_a_placement_of_the_model_does_not_serve_it() -> None:
    spec = fleet(site("a"), site("b"), placements=(placement("a"),))
    choice = Desk(spec, state(observation("a"), observation("b"))).choose()
    assert (choice.target, choice.rejections) == ("a", {"b": "does not serve m"})


@pytest.mark.parametrize(
    ("seen", "full"),
    [
        (observation("a", running=40), True),
        (observation("a", replicas=0), True),
        (observation("a", readiness="starting", replicas=0), True),
        (observation("a", readiness="failed", replicas=0), False),
        (observation("a", drain_s=5), False),
        (observation("a", age_s=9), True),
        (observation("a", age_s=9).model_copy(update={"error": "refused"}), False),
    ],
)
def test_a_request_may_wait_for_what_comes_back_by_itself(seen: Observation, full: bool) -> None:
    choice = Desk(fleet(site("a"), site("b")), state(seen, observation("b", readiness="failed"))).choose()
    assert (choice.target, choice.full, choice.forbidden) == (None, full, False)


def test_nobody_waits_for_a_full_site_while_another_may_serve() -> None:
    choice = Desk(fleet(site("a"), site("b")), state(observation("a", running=40), observation("b"))).choose()
    assert (choice.target, choice.full) == ("b", False)


def test_a_full_site_that_failed_this_request_is_not_waited_for() -> None:
    choice = Desk(fleet(site("a")), state(observation("a", running=40))).choose(excluded={"a": "reset"})
    assert (choice.target, choice.full) == (None, False)
    assert choice.rejections == {"a": "failed this request: reset"}


def test_the_load_that_counts_as_full_is_a_setting() -> None:
    spec = fleet(site("a"), routing=RoutingSpec(hold=HoldSpec(max_load=0.5)))
    assert Desk(spec, state(observation("a", running=5))).choose().full
    assert Desk(spec, state(observation("a", running=4))).choose().target == "a"


@pytest.mark.parametrize(
    ("facts", "forbidden"),
    [
        (replace(FACTS, jurisdictions=frozenset({"ch"})), True),
        (replace(FACTS, jurisdictions=frozenset()), True),
        (replace(FACTS, jurisdictions=frozenset({"eu"})), True),  # b's, which does not serve this tenant
        (replace(FACTS, jurisdictions=frozenset({"eu"}), only_site="a"), True),
        (replace(FACTS, model="x"), False),
        (replace(FACTS, only_site="x"), False),
        (replace(FACTS, task=Task.SCORE), False),
        (replace(FACTS, jurisdictions=frozenset({"us"})), False),  # a's, which has failed
    ],
)
def test_only_rules_forbid(facts: Facts, forbidden: bool) -> None:
    spec = fleet(site("a", jurisdiction="us"), site("b", jurisdiction="eu", tenants=("t",)))
    choice = Desk(spec, state(observation("a", readiness="failed"), observation("b"))).choose(facts)
    assert (choice.target, choice.forbidden) == (None, forbidden)


@pytest.mark.parametrize(
    ("allowed", "retains_data", "reason"),
    [
        ("any", True, None),
        ("no_retention", False, None),
        ("no_retention", True, "may keep prompts"),
        ("never", False, "the request may not leave our own sites"),
    ],
)
def test_keys_say_which_hosted_targets_they_trust(allowed: str, retains_data: bool, reason: str | None) -> None:
    spec = fleet(site("a"), hosted=(hosted("h", retains_data=retains_data),))
    choice = Desk(spec, state(observation("a", readiness="failed"))).choose(replace(FACTS, hosted=allowed))
    assert choice.target == (None if reason else "h")
    assert choice.rejections.get("h") == reason
    assert not choice.forbidden


@pytest.mark.parametrize(
    ("task", "protocol", "serves"),
    [
        (Task.CHAT, "openai", True),
        (Task.COMPLETIONS, "openai", True),
        (Task.CHAT, "anthropic", True),
        (Task.COMPLETIONS, "anthropic", False),
        (None, "openai", False),
    ],
)
def test_hosted_targets_do_what_their_protocol_has(task: Task | None, protocol: str, serves: bool) -> None:
    model = ModelSpec(name="m", source="s", release=RELEASE, tasks=(Task.CHAT, Task.COMPLETIONS), max_model_len=4096)
    spec = fleet(site("a"), hosted=(hosted("h", protocol=protocol),), models=(model,))
    choice = Desk(spec, state()).choose(replace(FACTS, task=task))
    assert choice.target == ("h" if serves else None)


def test_any_placement_counts_tokens() -> None:
    choice = Desk(fleet(site("a")), state(observation("a"))).choose(replace(FACTS, task=None))
    assert (choice.target, choice.hosted, choice.size.output_tokens) == ("a", False, 0)


def test_a_placement_may_have_a_longer_context_than_its_model() -> None:
    spec = fleet(site("a"), site("b"), placements=(placement("a"), placement("b", engine={"max_model_len": 8192})))
    desk = Desk(spec, state(observation("a"), observation("b")))
    assert desk.targets() == {"a", "b"}
    assert desk.targets(replace(FACTS, min_context=4097)) == {"b"}
    assert desk.targets(replace(FACTS, min_context=8193)) == {None}


def test_a_site_whose_state_is_unreachable_serves_as_long_as_requests_succeed_there() -> None:
    desk = Desk(fleet(site("a")), state(observation("a", age_s=60, running=40)))
    assert desk.choose().rejections == {"a": "last observed 60.0 s ago"}
    desk.books.health.succeeded("a", "m", NOW - 4)
    desk.now += 1
    choice = desk.choose()
    assert (choice.target, choice.load) == ("a", 0), "what it reported a minute ago says nothing of its load"
    for _ in range(5):
        desk.books.leases.take("a", "m")
    assert desk.choose().load == 0.5, "own leases over the last known capacity"
    desk.now += 1
    assert desk.choose().target is None
    desk.books.health.succeeded("a", "m", desk.now)
    assert desk.choose().target is None, "looked at anew within a quarter of a second"
    desk.now += 0.25
    assert desk.choose().target == "a"


def test_a_site_that_was_never_read_has_its_declared_capacity() -> None:
    desk = Desk(fleet(site("a")), state(Observation(site="a", error="refused")))
    desk.books.health.succeeded("a", "m", NOW)
    desk.books.leases.take("a", "m")
    choice = desk.choose()
    assert (choice.target, choice.load) == ("a", 1 / 64)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (observation("a", age_s=60, drain_s=5), "draining"),
        (observation("a", age_s=60, release="ba9876543210"), f"serves release ba9876543210, not {RELEASE}"),
    ],
)
def test_a_last_word_on_drain_and_release_holds(seen: Observation, reason: str) -> None:
    desk = Desk(fleet(site("a")), state(seen))
    desk.books.health.succeeded("a", "m", NOW)
    assert desk.choose().rejections == {"a": reason}


def test_an_ejected_place_gets_nothing_and_then_one_probe() -> None:
    spec = fleet(site("a"), site("b"), routing=RoutingSpec(health=HealthSpec(consecutive_errors=1)))
    desk = Desk(spec, state(observation("a", running=5), observation("b")))
    assert desk.choose(replace(FACTS, policy="least_loaded")).target == "b"
    desk.books.health.failed("b", "m", "reset", NOW)
    facts = replace(FACTS, policy="least_loaded")
    assert desk.choose(facts).target == "a"
    assert desk.choose(facts).rejections == {"b": "ejected for 5.0 s more: 1 failures in a row, the last: reset"}
    desk.now += 5
    desk.fleet = state(observation("a", running=5, age_s=-5), observation("b", age_s=-5))
    probe = desk.choose(facts)
    assert (probe.target, probe.probe) == ("b", True)
    assert desk.choose(facts).target == "b", "asking changes nothing"
    desk.books.health.probing("b", "m", desk.now)
    assert desk.choose(facts).target == "a"
    desk.books.health.succeeded("b", "m", desk.now)
    assert (desk.choose(facts).target, desk.choose(facts).probe) == ("b", False)


def test_a_place_that_asked_for_rest_is_waited_for() -> None:
    desk = Desk(fleet(site("a")), state(observation("a")))
    desk.books.health.rest("a", "m", "status 429", 3, NOW)
    choice = desk.choose()
    assert (choice.full, choice.rejections) == (True, {"a": "rests for 3.0 s more: status 429"})
    desk.now += 3
    assert desk.choose().target == "a"
