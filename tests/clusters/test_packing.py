"""Replicas on cards: all of them placed, no card over 1, and the bill that follows."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.check import load
from clusters.packing import Need, pack, plan, shared_cards

ROOT = Path(__file__).parents[2]

GPUS, CPUS = 4, 16
SIZES = st.one_of(st.integers(5, 100).map(lambda hundredths: hundredths / 100), st.integers(1, GPUS).map(float))
NEEDS = st.lists(
    st.builds(
        Need, model=st.sampled_from("abcdef"), gpus=SIZES, cpus=st.floats(0.1, CPUS), replicas=st.integers(0, 12)
    ),
    max_size=6,
)


@given(NEEDS)
@settings(max_examples=200, deadline=None)
def test_every_replica_is_seated_and_nothing_is_overfull(needs: list[Need]) -> None:
    packing = pack(needs, GPUS, CPUS)
    assert len(packing.seats) == sum(need.replicas for need in needs)
    assert {seat.node for seat in packing.seats} == set(range(packing.nodes))
    cards: dict[tuple[int, int], float] = defaultdict(float)
    for seat in packing.seats:
        assert len(set(seat.cards)) == (1 if seat.gpus <= 1 else seat.gpus)
        for card in seat.cards:
            assert 0 <= card < GPUS
            cards[seat.node, card] += min(seat.gpus, 1)
    assert all(used <= 1 + 1e-9 for used in cards.values())
    assert packing == pack(list(reversed(needs)), GPUS, CPUS)


@given(NEEDS)
@settings(max_examples=50, deadline=None)
def test_cpus_limit_nodes_too(needs: list[Need]) -> None:
    enough = pack(needs, GPUS, CPUS)
    cpus = sum(need.cpus * need.replicas for need in needs)
    assert enough.nodes >= cpus / CPUS - 1e-3


def test_fractions_fill_a_card_before_the_next_one() -> None:
    packing = pack([Need("chat", 0.5, 1, 2), Need("embed", 0.25, 1, 3)], gpus=2, cpus=16)
    assert packing.nodes == 1
    assert {card: [seat.model for seat in seats] for (_, card), seats in shared_cards(packing.seats).items()} == {
        0: ["chat", "chat"],
        1: ["embed", "embed", "embed"],
    }


def test_tenths_add_up_to_a_whole_card() -> None:
    assert pack([Need("small", 0.1, 1, 10)], gpus=1, cpus=16).nodes == 1


def test_whole_cards_never_span_nodes() -> None:
    packing = pack([Need("large", 3, 1, 2), Need("small", 1, 1, 2)], gpus=4, cpus=16)
    assert [(seat.model, seat.node, seat.cards) for seat in packing.seats] == [
        ("large", 0, (0, 1, 2)),
        ("large", 1, (0, 1, 2)),
        ("small", 0, (3,)),
        ("small", 1, (3,)),
    ]


def test_without_gpus_cpus_decide() -> None:
    assert pack([Need("plain", 0, 3, 3)], gpus=0, cpus=8).nodes == 2


def test_what_fits_nowhere_is_an_error_rather_than_a_loop() -> None:
    with pytest.raises(ValueError, match="no room"):
        pack([Need("large", 2, 1, 1)], gpus=1, cpus=8)


def test_the_bill_stays_within_the_pools_bounds() -> None:
    fleet = load(ROOT / "fleet.yaml")
    for site in fleet.sites:
        for pool in site.pools:
            planned = plan(fleet, site, pool)
            least, most = planned.nodes
            assert pool.min_nodes <= least <= most <= pool.max_nodes
            assert planned.usd_per_hour == (least * pool.usd_per_hour, most * pool.usd_per_hour)
            assert [placement.pool for placement in planned.placements] == [pool.name] * len(planned.placements)
