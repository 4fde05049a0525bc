"""Which of the places that may serve a request is taken."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clusters.routing import Preset
from clusters.spec import Market, Provider
from serve_app.routing.candidates import IDLE, candidates
from serve_app.routing.quotes import EXPLORE
from tests.serve_app.routing.fleets import (
    FACTS,
    LEAST_LOADED,
    NOW,
    Desk,
    desk,
    fleet,
    hosted,
    measure,
    observation,
    placement,
    site,
    state,
    with_policy,
)

CHEAPEST = replace(FACTS, policy="cheapest")

# Prices


def test_a_slot_costs_its_share_of_the_node() -> None:
    spec = fleet(site("a", usd=3.6), placements=(placement("a", gpus=0.5, batching={"max_num_seqs": 10}),))
    (candidate,) = candidates(spec, "m")
    assert candidate.usd_per_slot_s == pytest.approx(3.6 / 3600 / 2 / 10)
    assert candidate.usd_per_idle_slot_s == candidate.usd_per_slot_s


def test_a_placement_without_gpus_costs_its_share_of_the_cpus() -> None:
    spec = fleet(site("a", usd=3.6), placements=(placement("a", gpus=0, cpus=1, batching={"max_num_seqs": 10}),))
    (candidate,) = candidates(spec, "m")
    assert candidate.usd_per_slot_s == pytest.approx(3.6 / 3600 / 4 / 10)


@pytest.mark.parametrize(
    ("market", "provider", "factor"),
    [
        (Market.RESERVED, Provider.AWS, IDLE),
        (Market.ON_DEMAND, Provider.ONPREM, IDLE),
        (Market.ON_DEMAND, Provider.AWS, 1),
        (Market.SPOT, Provider.GCP, 1),
    ],
)
def test_idle_capacity_that_is_paid_for_costs_nearly_nothing(market: Market, provider: Provider, factor: float) -> None:
    (candidate,) = candidates(fleet(site("a", market=market, provider=provider)), "m")
    assert candidate.usd_per_idle_slot_s == pytest.approx(factor * candidate.usd_per_slot_s)


def test_reserved_capacity_goes_first_and_at_full_price_once_it_is_full() -> None:
    spec = fleet(site("reserved", market=Market.RESERVED, usd=1), site("spot", market=Market.SPOT, usd=0.4))
    free = Desk(spec, state(observation("reserved", running=9), observation("spot")))
    assert free.targets() == {"reserved"}
    full = Desk(spec, state(observation("reserved", running=10), observation("spot")))
    assert full.targets() == {"spot"}


def test_egress_is_paid_for_streams_more_than_for_whole_answers() -> None:
    spec = fleet(site("near", egress_usd_per_gb=0.0, usd=1.02), site("far", egress_usd_per_gb=0.12, usd=1))
    at = Desk(spec, state(observation("near"), observation("far")))
    stream, whole = at.choose(FACTS).explanation(), at.choose(replace(FACTS, stream=False)).explanation()
    assert stream.considered[1].usd_egress == pytest.approx(256 * 250 * 0.12e-9)
    assert whole.considered[1].usd_egress == pytest.approx(256 * 5 * 0.12e-9)
    assert stream.considered[0].usd_egress == 0


def test_a_request_expects_no_more_tokens_than_it_asked_for() -> None:
    at = desk("a")
    assert at.choose(FACTS).size.output_tokens == 256
    assert at.choose(replace(FACTS, max_tokens=10)).size.output_tokens == 10
    assert at.choose(replace(FACTS, max_tokens=10_000)).size.output_tokens == 256
    for _ in range(100):
        at.books.latency.finished("a", "m", 50, 1.0, NOW)
    assert at.choose(replace(FACTS, max_tokens=100)).size.output_tokens == pytest.approx(50, abs=1)


def test_lateness_has_a_price() -> None:
    routing = with_policy(Preset.BALANCED, ttft_target_s=0.5, usd_per_late_second=1.0)
    spec = fleet(site("slow", usd=0.1), site("quick", usd=5), routing=routing)
    at = Desk(spec, state(observation("slow"), observation("quick")))
    measure(at, "slow", seconds=2.0)
    measure(at, "quick", seconds=0.2)
    assert at.targets() == {"quick"}
    assert at.targets(replace(FACTS, policy="cheapest")) == {"slow"}, "a dollar a second is not in the preset"
    late = {each.name: each.usd_late for each in at.choose().explanation().considered}
    assert late == {"slow": pytest.approx(1.5, rel=0.02), "quick": 0}


def test_a_queue_makes_late() -> None:
    at = Desk(fleet(site("a")), state(observation("a", running=10, waiting=10)))
    measure(at, "a")
    (told,) = at.choose().explanation().considered
    assert told.load == 2
    assert told.queue_s == pytest.approx(256 * 0.02, rel=0.01)
    assert told.predicted_ttft_s == pytest.approx(told.round_trip_s + told.queue_s + told.prefill_s)


# Hosted targets


def test_the_last_resort_serves_only_when_no_site_can() -> None:
    spec = fleet(site("a", usd=1000), hosted=(hosted("h"), hosted("dear", models=(dear(),))))
    at = Desk(spec, state(observation("a", running=39)))
    assert at.targets() == {"a"}
    at.fleet = state(observation("a", running=40))
    assert at.targets() == {"h"}, "rather than wait for a full site; the cheaper one of two"
    assert at.choose(excluded={"h": "reset"}).target == "dear"
    assert at.choose().hosted


def dear() -> dict[str, object]:
    return {"model": "m", "name": "theirs", "usd_per_million_input": 10, "usd_per_million_output": 20}


def test_a_hosted_target_competes_by_list_price() -> None:
    spec = fleet(site("a", usd=0.5), hosted=(hosted("h", use="by_price"),))
    at = Desk(spec, state(observation("a")))
    assert at.targets(CHEAPEST) == {"a"}
    told = {each.name: each for each in at.choose(CHEAPEST).explanation().considered}
    assert told["h"].usd_tokens == pytest.approx(100e-6 + 256 * 2e-6)
    spec = fleet(site("a", usd=500), hosted=(hosted("h", use="by_price"),))
    at = Desk(spec, state(observation("a")))
    assert at.targets(CHEAPEST) == {"h"}


def test_a_hosted_target_takes_so_many_at_once() -> None:
    at = Desk(fleet(site("a"), hosted=(hosted("h", max_in_flight=2),)), state())
    assert at.choose().target == "h"
    at.books.leases.take("h", "m")
    at.books.leases.take("h", "m")
    choice = at.choose()
    assert (choice.target, choice.full, choice.rejections["h"]) == (None, True, "full: 1.0 requests per slot")


def test_what_a_hosted_target_has_in_its_cache_is_not_counted_on() -> None:
    at = Desk(fleet(site("a"), hosted=(hosted("h", use="by_price"),)), state())
    at.books.prefixes.learn(TALK.blocks, "h")
    (told,) = at.choose(TALK).explanation().considered
    assert (told.cached_tokens, told.usd_saved) == (0, 0)
    assert told.score == pytest.approx(told.usd_total)


# Exploring


def test_an_unmeasured_place_is_tried_by_a_few_requests_at_a_time() -> None:
    at = desk("known", "new", routing=with_policy(Preset.FASTEST))
    measure(at, "known", seconds=1.0)
    assert at.targets() == {"known", "new"}, "as good as the best"
    for _ in range(EXPLORE):
        at.books.leases.take("new", "m")
    assert at.targets() == {"known"}
    at.books.latency.first_token("new", "m", 0.1, 100, 0, at.now)
    at.now += 0.25
    assert at.targets() == {"new"}


# The cached prefix


def conversation(at: Desk, name: str) -> None:
    at.books.prefixes.learn(TALK.blocks, name)


TALK = replace(FACTS, prompt_tokens=2100, blocks=tuple(range(8)))


def test_a_conversation_returns_to_the_site_that_has_its_cache() -> None:
    at = desk("a", "b", "c")
    measure(at, "a", "b", "c")
    assert at.targets(TALK) == {"a", "b", "c"}
    conversation(at, "b")
    at.fleet = state(observation("a"), observation("b", running=5), observation("c"))
    assert at.targets(TALK) == {"b"}, "in spite of some load"
    told = {each.name: each for each in at.choose(TALK).explanation().considered}
    assert (told["b"].cached_tokens, told["a"].cached_tokens) == (2048, 0)
    assert told["b"].usd_saved > 0
    assert told["b"].predicted_ttft_s < told["a"].predicted_ttft_s
    assert at.choose(TALK).uncached_tokens == 52


def test_a_conversation_leaves_an_overloaded_site() -> None:
    at = desk("a", "b")
    measure(at, "a", "b")
    conversation(at, "b")
    at.fleet = state(observation("a"), observation("b", running=10, waiting=10))
    assert at.targets(TALK) == {"a"}


def test_a_session_returns_without_any_block() -> None:
    at = desk("a", "b", "c")
    measure(at, "a", "b", "c")
    facts = replace(TALK, blocks=(), session=7)
    at.books.prefixes.learn((), "c", session=7, prompt_tokens=2000)
    assert at.targets(facts) == {"c"}
    assert at.targets(replace(facts, session=8)) == {"a", "b", "c"}


def test_a_cache_elsewhere_does_not_outweigh_the_rules() -> None:
    spec = fleet(site("a", jurisdiction="eu"), site("b", jurisdiction="us"))
    at = Desk(spec, state(observation("a"), observation("b")))
    conversation(at, "b")
    assert at.targets(replace(TALK, jurisdictions=frozenset({"eu"}))) == {"a"}


def test_near_equals_are_told_apart_by_their_caches() -> None:
    at = desk("a", "b", "c", routing=with_policy(Preset.LEAST_LOADED))
    conversation(at, "b")
    assert at.targets(TALK) == {"b"}
    at.fleet = state(observation("a"), observation("b", running=3), observation("c"))
    assert at.targets(TALK) == {"a", "c"}


# Many routers


def test_routers_that_see_the_same_spread_over_equal_sites() -> None:
    names = [f"s{n}" for n in range(4)]
    for preset in (Preset.BALANCED, Preset.LEAST_LOADED, Preset.FASTEST, Preset.CHEAPEST):
        routers = [desk(*names, routing=with_policy(preset)) for _ in range(8)]
        counts: Counter[str | None] = Counter()
        for seed, at in enumerate(routers):
            at.router._rng = random.Random(seed)
            measure(at, *names)
            for _ in range(20):
                choice = at.choose()
                counts[choice.target] += 1
                at.books.leases.take(choice.target or "", "m")
        expected = 8 * 20 / len(names)
        distance = sum((counts[name] - expected) ** 2 / expected for name in names)
        assert distance < 16.3, f"{preset}: {counts}: a chi-square that one time in a thousand is chance"


def test_nothing_clearly_better_is_passed_over() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        loads = {name: rng.randrange(30) for name in "abcd"}
        at = Desk(fleet(*map(site, loads)), state(*(observation(name, running=n) for name, n in loads.items())), seed)
        choice = at.choose(LEAST_LOADED)
        assert choice.picked is not None
        assert choice.scores[choice.picked] <= min(choice.scores) * 1.05 + 0.05


# Monotony


SCORED = [Preset.BALANCED, Preset.LEAST_LOADED, Preset.CHEAPEST, Preset.FASTEST, Preset.SPILL]


@given(
    load=st.integers(0, 39),
    more=st.integers(1, 10),
    market=st.sampled_from(Market),
    preset=st.sampled_from(SCORED),
    seconds=st.lists(st.floats(0.01, 10), min_size=5, max_size=5),
)
def test_more_load_never_makes_a_site_more_attractive(
    load: int, more: int, market: Market, preset: Preset, seconds: list[float]
) -> None:
    spec = fleet(site("a", market=market), routing=with_policy(preset))
    at = Desk(spec, state(observation("a", running=load)))
    for band, value in zip((0, 0.3, 0.6, 0.8, 1), seconds, strict=True):
        at.books.latency.first_token("a", "m", value, 100, band, NOW)
    before = at.score("a")
    at.fleet = state(observation("a", running=load + more))
    assert at.score("a") >= before


@given(
    usd=st.floats(0, 100),
    share=st.floats(0, 1),
    load=st.integers(0, 39),
    market=st.sampled_from(Market),
    preset=st.sampled_from([Preset.BALANCED, Preset.CHEAPEST]),
)
def test_a_lower_price_never_makes_a_site_less_attractive(
    usd: float, share: float, load: int, market: Market, preset: Preset
) -> None:
    dear, cheap = (
        Desk(
            fleet(site("a", market=market, usd=price), routing=with_policy(preset)),
            state(observation("a", running=load)),
        ).score("a")
        for price in (usd, usd * share)
    )
    assert cheap <= dear


def test_sites_that_cost_nothing_are_told_apart_by_load() -> None:
    at = desk("a", "b")
    at.spec = fleet(site("a", usd=0), site("b", usd=0))
    at = Desk(at.spec, state(observation("a", running=8), observation("b")))
    measure(at, "a", "b")
    assert at.targets() == {"b"}
