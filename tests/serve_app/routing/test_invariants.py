"""What holds of every choice, over random fleets, requests and histories."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from clusters.spec import FleetSpec, Protocol, Task
from clusters.state import FleetState
from serve_app.routing.choice import Choice, Router
from serve_app.routing.facts import Facts
from tests.serve_app.routing.fleets import Desk, disturb, names, random_facts, random_fleet, random_state

BLOCKS = tuple(range(1, 9))
SEEDS = st.integers(0, 2**63)


def random_desk(rng: random.Random) -> Desk:
    spec = random_fleet(rng)
    desk = Desk(spec, random_state(rng, spec), seed=rng.randrange(2**32))
    disturb(rng, desk, BLOCKS)
    return desk


def may_serve(spec: FleetSpec, name: str, facts: Facts) -> bool:
    """The rules, in other words than the filters'."""
    for site in spec.sites:
        if site.name == name:
            lawful = facts.jurisdictions is None or site.jurisdiction in facts.jurisdictions
            return lawful and (not site.tenants or facts.tenant in site.tenants)
    target = next(target for target in spec.hosted if target.name == name)
    lawful = facts.jurisdictions is None or target.jurisdiction in facts.jurisdictions
    discreet = {"any": True, "no_retention": not target.retains_data, "never": False}[facts.hosted]
    return lawful and discreet


def serves(spec: FleetSpec, name: str, facts: Facts) -> bool:
    model = next(model for model in spec.models if model.name == facts.model)
    if facts.only_site not in (None, name) or (facts.task is not None and facts.task not in model.tasks):
        return False
    if any(placement.site == name and placement.model == facts.model for placement in spec.placements):
        return True
    return facts.task is not None and any(
        target.name == name
        and (target.protocol is Protocol.OPENAI or facts.task is Task.CHAT)
        and any(offer.model == facts.model for offer in target.models)
        for target in spec.hosted
    )


@given(seed=SEEDS)
@settings(max_examples=10_000, deadline=None)
def test_no_hop_of_a_request_leaves_what_its_rules_allow(seed: int) -> None:
    """Every attempt goes on from the last one: with what was tried excluded, leases taken, and health and prefixes
    learned, as retries, hedges and continuations do. Similar requests then meet what the first one left behind."""
    rng = random.Random(seed)
    desk = random_desk(rng)
    facts = random_facts(rng, desk.spec, BLOCKS)
    for _ in range(3):
        excluded: dict[str, str] = {}
        while (choice := desk.choose(facts, excluded)).target is not None:
            target = choice.target
            assert target not in excluded
            assert may_serve(desk.spec, target, facts)
            assert serves(desk.spec, target, facts)
            assert choice.hosted == target.startswith("h")
            excluded[target] = "status 503"
            follow(rng, desk, choice, target)
        check_refusal(desk.spec, facts, choice, excluded)
        facts = replace(facts, **changed_field(rng, random_facts(rng, desk.spec, BLOCKS)))


def changed_field(rng: random.Random, facts: Facts) -> dict[str, Any]:
    name = rng.choice(("model", "task", "tenant", "jurisdictions", "hosted", "only_site", "policy", "min_context"))
    return {name: getattr(facts, name)}


def follow(rng: random.Random, desk: Desk, choice: Choice, target: str) -> None:
    model = choice.facts.model
    desk.books.leases.take(target, model)
    desk.books.prefixes.learn(choice.facts.blocks, target, choice.facts.session, 100)
    if choice.probe:
        desk.books.health.probing(target, model, desk.now)
    if rng.random() < 0.5:
        desk.books.health.failed(target, model, "reset", desk.now)
    else:
        desk.books.health.succeeded(target, model, desk.now)
    desk.now += rng.choice((0.0, 0.1, 3.0))


def check_refusal(spec: FleetSpec, facts: Facts, choice: Choice, excluded: dict[str, str]) -> None:
    serving = [name for name in names(spec) if serves(spec, name, facts)]
    allowed = [name for name in serving if may_serve(spec, name, facts)]
    assert choice.forbidden == (bool(serving) and not allowed)
    assert not (choice.forbidden and choice.full)
    assert set(excluded) <= set(allowed)


@given(seed=SEEDS)
@settings(max_examples=1000, deadline=None)
def test_every_place_is_considered_or_rejected_with_a_reason(seed: int) -> None:
    rng = random.Random(seed)
    desk = random_desk(rng)
    facts = random_facts(rng, desk.spec, BLOCKS)
    tried = {name: "reset" for name in names(desk.spec) if rng.random() < 0.2}
    choice = desk.choose(facts, tried)
    told = choice.explanation()
    considered = {each.name for each in told.considered}
    assert considered | set(told.rejections) == set(names(desk.spec))
    assert not considered & set(told.rejections)
    assert all(told.rejections.values())
    assert [each.name for each in told.considered if each.chosen] == [name for name in [choice.target] if name]
    assert (choice.target is None) == (not considered)


@given(seed=SEEDS)
@settings(max_examples=1000, deadline=None)
def test_a_router_that_lived_through_it_all_scores_like_a_new_one(seed: int) -> None:
    """What is kept between choices is brought up to date by what changed, and only by that."""
    rng = random.Random(seed)
    desk = random_desk(rng)
    for _ in range(rng.randint(1, 6)):
        facts = random_facts(rng, desk.spec, BLOCKS)
        target = desk.choose(facts).target
        if target is not None:
            happen(rng, desk, target, facts.model)
        if rng.random() < 0.3:
            desk.fleet = refreshed(rng, desk)
    facts = random_facts(rng, desk.spec, BLOCKS)
    old = desk.choose(facts)
    desk.router = Router(desk.spec, desk.books, random.Random(0))
    new = desk.choose(facts)
    assert (old.scores, old.rejections) == (new.scores, new.rejections)


def happen(rng: random.Random, desk: Desk, target: str, model: str) -> None:
    match rng.randrange(6):
        case 0 | 1:
            desk.books.leases.take(target, model)
        case 2 if desk.books.leases.in_flight(target, model):
            desk.books.leases.release(target, model)
        case 3:
            desk.books.health.failed(target, model, "reset", desk.now)
        case 4:
            desk.books.health.probing(target, model, desk.now)
        case 5:
            desk.books.health.rest(target, model, "status 429", 1, desk.now)


def refreshed(rng: random.Random, desk: Desk) -> FleetState:
    """With some sites read anew."""
    read = random_state(rng, desk.spec).observations
    some = {name: seen for name, seen in read.items() if rng.random() < 0.5}
    return FleetState(observations={**desk.fleet.observations, **some})


@given(seed=SEEDS)
@settings(max_examples=1000, deadline=None)
def test_an_explanation_adds_up_to_what_decided(seed: int) -> None:
    rng = random.Random(seed)
    desk = random_desk(rng)
    choice = desk.choose(random_facts(rng, desk.spec, BLOCKS))
    told = choice.explanation()
    assert type(told).model_validate_json(told.model_dump_json()) == told
    settings = desk.spec.routing.named_policy(told.policy)
    assert settings is not None
    for each in told.considered:
        late_s = max(0.0, each.predicted_ttft_s - settings.ttft_target_s)
        expected = {
            "fastest": each.predicted_ttft_s,
            "least_loaded": each.load,
            "nearest": each.round_trip_s,
            "weighted": 0.0,
            "cheapest": each.usd_tokens
            - each.usd_saved
            + each.usd_egress
            + 0.1 * late_s * settings.usd_per_late_second,
        }.get(settings.preset, each.usd_total)
        # Ranks are added to scores, which costs them some digits.
        assert abs(each.score - expected) < 1e-9 + 1e-15 * 1e6 * (1 + each.rank)
        assert each.usd_saved >= -1e-15
        if each.chosen:
            assert abs(choice.predicted_ttft_s - each.predicted_ttft_s) < 1e-9
            assert choice.late_ttft_s >= choice.predicted_ttft_s
            assert abs(choice.usd - (each.usd_tokens - each.usd_saved + each.usd_egress)) < 1e-12
