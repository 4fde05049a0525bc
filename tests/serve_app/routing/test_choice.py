"""Properties of every choice, over random fleets."""

import contextlib
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.spec import Task
from clusters.state import FleetState, Observation, PlacementState, Readiness, SiteState
from serve_app.routing.choice import Chain
from serve_app.routing.facts import Facts
from serve_app.routing.filters import Filter, fresh, not_tried, pinned, ready, serves
from serve_app.routing.leases import Leases
from serve_app.routing.pickers import lowest
from serve_app.routing.scorers import requests_per_slot

NOW = 1000.0
MAX_AGE_S = 5.0
NAMES = ("a", "b", "c", "d")
FACTS = Facts("m", Task.CHAT, stream=False, body_bytes=10)
DECLARED = {name: {"m": frozenset({Task.CHAT})} for name in ("a", "b", "c")}
FILTERS: tuple[Filter, ...] = (pinned, not_tried, serves(DECLARED), fresh(MAX_AGE_S), ready)


def chain(seed: int = 0) -> Chain:
    return Chain(FILTERS, requests_per_slot, lowest(random.Random(seed)))


def observation(site: str, age_s: float = 0.5, **placement: object) -> Observation:
    fields = {
        "model": "m",
        "release": "r",
        "readiness": Readiness.READY,
        "replicas": 1,
        "target_replicas": 1,
        "capacity": 10,
        "running": 0,
        "waiting": 0,
    }
    state = SiteState(site=site, at=0, placements=(PlacementState.model_validate({**fields, **placement}),))
    return Observation(site=site, state=state, read_at=NOW - age_s)


def fleet(*observations: Observation) -> FleetState:
    return FleetState(observations={seen.site: seen for seen in observations})


PLACEMENTS = st.builds(
    PlacementState,
    model=st.sampled_from(("m", "other")),
    release=st.just("r"),
    readiness=st.sampled_from(Readiness),
    replicas=st.integers(0, 3),
    target_replicas=st.just(1),
    capacity=st.integers(0, 64),
    running=st.none() | st.integers(0, 100),
    waiting=st.none() | st.integers(0, 100),
)


@st.composite
def fleets(draw: st.DrawFn) -> FleetState:
    return fleet(
        *(
            Observation(
                site=name,
                state=draw(
                    st.none()
                    | st.builds(SiteState, site=st.just(name), at=st.just(0), placements=st.tuples(PLACEMENTS))
                ),
                read_at=draw(st.none() | st.floats(NOW - 10, NOW)),
                error=draw(st.sampled_from(("", "no connection"))),
            )
            for name in draw(st.sets(st.sampled_from(NAMES)))
        )
    )


TRIED = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(("", "status 503")))
REQUESTS = st.builds(
    Facts,
    model=st.sampled_from(("m", "unknown")),
    task=st.sampled_from(Task),
    stream=st.booleans(),
    body_bytes=st.integers(0, 100),
    only_site=st.none() | st.sampled_from(NAMES),
)


@given(facts=REQUESTS, state=fleets(), tried=TRIED, seed=st.integers())
def test_every_site_is_scored_or_rejected_with_a_reason(
    facts: Facts, state: FleetState, tried: dict[str, str], seed: int
) -> None:
    choice = chain(seed).choose(facts, state, Leases(), tried, NOW)
    assert set(choice.scores) | set(choice.rejections) == set(state.observations)
    assert not set(choice.scores) & set(choice.rejections)
    assert all(choice.rejections.values())
    assert (choice.site is None) == (not choice.scores)


@given(facts=REQUESTS, state=fleets(), tried=TRIED, seed=st.integers())
def test_a_picked_site_could_serve(facts: Facts, state: FleetState, tried: dict[str, str], seed: int) -> None:
    site = chain(seed).choose(facts, state, Leases(), tried, NOW).site
    if site is None:
        return
    seen = state.observations[site]
    assert facts.only_site in (None, site)
    assert site not in tried
    assert facts.task in DECLARED[site][facts.model]
    assert seen.read_at is not None
    assert NOW - seen.read_at <= MAX_AGE_S
    assert seen.state is not None
    placement = seen.state.placement(facts.model)
    assert placement is not None
    assert placement.readiness is Readiness.READY
    assert placement.replicas * placement.capacity > 0


@given(loads=st.lists(st.integers(0, 100), min_size=3, max_size=3), seed=st.integers())
def test_nothing_clearly_better_is_passed_over(loads: list[int], seed: int) -> None:
    seen = [observation(name, running=load) for name, load in zip("abc", loads, strict=True)]
    choice = chain(seed).choose(FACTS, fleet(*seen), Leases(), {}, NOW)
    assert choice.site is not None
    assert choice.scores[choice.site] <= min(choice.scores.values()) + 0.05


def test_a_larger_placement_bears_more() -> None:
    choice = chain().choose(
        FACTS, fleet(observation("a", running=5), observation("b", running=9, replicas=2)), Leases(), {}, NOW
    )
    assert choice.scores == {"a": 0.5, "b": 0.45}


def test_near_equals_share() -> None:
    state = fleet(observation("a"), observation("b"), observation("c", running=1))
    assert {chain(seed).choose(FACTS, state, Leases(), {}, NOW).site for seed in range(50)} == {"a", "b"}


@pytest.mark.parametrize(
    ("facts", "seen", "tried", "reason"),
    [
        (FACTS, observation("d"), {}, "does not serve m"),
        (Facts("m", Task.EMBEDDINGS, False, 1), observation("a"), {}, "serves m, but not for embeddings"),
        (Facts("m", Task.CHAT, False, 1, only_site="b"), observation("a"), {}, "the request is for b only"),
        (FACTS, observation("a"), {"a": "status 503"}, "failed this request: status 503"),
        (FACTS, observation("a", age_s=7), {}, "last observed 7.0 s ago"),
        (FACTS, Observation(site="a", error="no connection"), {}, "never observed: no connection"),
        (FACTS, observation("a", model="other"), {}, "does not report m"),
        (FACTS, observation("a", readiness="failed", message="no memory"), {}, "m is failed: no memory"),
        (FACTS, observation("a", replicas=0), {}, "m has no replica that answers"),
    ],
)
def test_reasons(facts: Facts, seen: Observation, tried: dict[str, str], reason: str) -> None:
    choice = chain().choose(facts, fleet(seen), Leases(), tried, NOW)
    assert (choice.site, choice.rejections) == (None, {seen.site: reason})


def scores(state: FleetState, leases: Leases) -> Iterable[float]:
    return chain().choose(FACTS, state, leases, {}, NOW).scores.values()


def test_own_leases_count_until_the_site_has_counted_them() -> None:
    leases = Leases()
    before, after = fleet(observation("a", running=2)), fleet(observation("a", age_s=0, running=4))
    with leases.take("a", "m", NOW - 0.5), leases.take("a", "m", NOW - 0.5):
        assert list(scores(before, leases)) == [0.4]
        assert list(scores(after, leases)) == [0.4]
    assert list(scores(before, leases)) == [0.2]


def test_own_leases_are_known_better_than_a_site_that_reports_nothing() -> None:
    leases = Leases()
    with leases.take("a", "m", 1.0), leases.take("a", "m", 2.0), leases.take("b", "m", 2.0), leases.take("a", "x", 2.0):
        assert list(scores(fleet(observation("a", running=None, waiting=None)), leases)) == [0.2]


def test_a_lease_ends_with_its_block() -> None:
    leases = Leases()
    with contextlib.suppress(TimeoutError), leases.take("a", "m", 1.0):
        assert (leases.in_flight("a", "m"), leases.since("a", "m", 1.0), leases.since("a", "m", 2.0)) == (1, 1, 0)
        raise TimeoutError
    assert (leases.in_flight("a", "m"), leases.since("a", "m", 1.0)) == (0, 0)
    assert leases.open() == {("a", "m"): 0}
