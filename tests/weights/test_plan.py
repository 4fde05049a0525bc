"""What a store lacks, where it comes from, and what that costs."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.spec import Provider
from clusters.storage import StoreSpec
from tests.weights.releases import NOW
from weights.copying.plan import Inventory, Needs, needs, plan, sources
from weights.copying.prices import relayed_usd_per_gb, usd_per_gb
from weights.copying.reconcile import SourceSpec
from weights.manifest import MANIFEST, PART, File, digest_of_parts, manifest_of, part_bytes

NAMES = [f"file-{number}" for number in range(6)]
RELEASE = manifest_of(
    "tiny", [File(path=name, size=at, digest=f"{at:064}") for at, name in enumerate(NAMES)], "s", None, NOW
)
GB = 10**9


@given(
    st.dictionaries(st.sampled_from([*NAMES, MANIFEST, "stray"]), st.integers(0, 6)), st.sets(st.sampled_from(NAMES))
)
def test_every_file_is_copied_cloned_verified_or_vouched_for(there: dict[str, int], elsewhere: set[str]) -> None:
    todo = needs(RELEASE, there, {name: f"models/other/{name}" for name in elsewhere})
    right = {file.path for file in RELEASE.files if there.get(file.path) == file.size}
    assert {file.path for file in todo.copy} == set(NAMES) - right - elsewhere
    assert {file.path for file in todo.clone} == elsewhere - right
    assert {file.path for file in todo.verify} == (set() if MANIFEST in there else right)
    assert {file.path for file in todo.keep} == (right if MANIFEST in there else set())
    assert todo.publish == (MANIFEST not in there)


@given(st.dictionaries(st.sampled_from([*NAMES, MANIFEST]), st.integers(0, 6)))
def test_nothing_is_left_to_do_afterwards(there: dict[str, int]) -> None:
    done = there | {file.path: file.size for file in RELEASE.files} | {MANIFEST: 1}
    assert needs(RELEASE, done, {}) == Needs((), (), (), RELEASE.files, publish=False)


PARTS = tuple("0" * 64 for _ in range(-(-GB // part_bytes(GB))))
BIG = manifest_of(
    "big", [File(path=name, size=GB, digest=digest_of_parts(PARTS), parts=PARTS) for name in "01"], "s", None, NOW
)


def empty(site: str, **fields: object) -> Inventory:
    return Inventory(**{"site": site, "stored": {}, "clones": {}, "free": None, **fields})  # type: ignore[arg-type]


def table(prices: Mapping[tuple[str, str], float], default: float = 0.09):  # type: ignore[no-untyped-def]
    return lambda source, target: prices.get((source, target), default)


def test_the_cheapest_way_may_lead_over_a_site_that_is_still_to_get_it() -> None:
    price = table({("a", "b"): 0.12, ("a", "c"): 0.12, ("b", "c"): 0.02, ("c", "b"): 0.02})
    plans = plan(BIG, [empty("b"), empty("c")], ["a"], price, None)
    assert [(one.site, one.source) for one in plans] == [("b", "a"), ("c", "b")]
    assert [one.usd for one in plans] == pytest.approx([0.24, 0.04])


def test_at_the_same_price_nobody_waits() -> None:
    plans = plan(BIG, [empty("b"), empty("c")], ["home"], table({}), None)
    assert [(one.site, one.source) for one in plans] == [("b", "home"), ("c", "home")]


def test_a_site_that_has_it_pays_nothing_and_needs_no_source() -> None:
    whole = {file.path: file.size for file in BIG.files} | {MANIFEST: 1}
    (one,) = plan(BIG, [empty("a", stored=whole)], ["a", "b"], table({}), 1e6)
    assert (one.source, one.usd, one.sent, one.seconds) == (None, 0, 0, 0)


def test_what_the_store_has_elsewhere_is_not_paid_for() -> None:
    (one,) = plan(BIG, [empty("b", clones={"0": "models/big/older/0"})], ["a"], table({}), 1e8)
    assert [file.path for file in one.needs.clone] == ["0"]
    assert (one.sent, one.seconds) == (GB, 10)
    assert one.usd == pytest.approx(0.09)


def test_what_can_not_be_done_is_said() -> None:
    (nowhere,) = plan(BIG, [empty("b")], [], table({}), None)
    assert nowhere.problem == "no store has it"
    (full,) = plan(BIG, [empty("b", free=GB)], ["a"], table({}), None)
    assert full.problem == "2,000,000,000 bytes are needed, 1,000,000,000 are free"


SITES = [f"s{number}" for number in range(5)]


@given(st.sets(st.sampled_from(SITES)), st.sets(st.sampled_from(SITES), min_size=1), st.randoms())
def test_every_site_gets_it_once_from_one_that_has_it_by_then(
    wanting: set[str], holders: set[str], rng: object
) -> None:
    prices = {(a, b): rng.random() for a in SITES for b in SITES}  # type: ignore[attr-defined]
    have = set(holders)
    order = sources(sorted(wanting), sorted(holders), table(prices))
    assert sorted(site for site, _ in order) == sorted(wanting)
    for site, source in order:
        assert source in have if site not in holders else source is None
        have.add(site)


def test_parts_grow_with_the_file_so_that_stores_take_them() -> None:
    assert part_bytes(1) == part_bytes(100 * 2**30) == PART
    for size in (2**37 + 1, 5 * 2**40):
        assert size / part_bytes(size) <= 8192


# Prices


def place(name: str, provider: Provider, region: str, egress: float) -> SourceSpec:
    return SourceSpec(
        name=name, provider=provider, region=region, egress_price=egress, store=StoreSpec(url=f"s3://{name}")
    )


EAST = place("east", Provider.AWS, "us-east-1", 0.09)
EAST_TOO = place("east-too", Provider.AWS, "us-east-1", 0.09)
TOKYO = place("tokyo", Provider.AWS, "ap-northeast-1", 0.114)
HOLLAND = place("holland", Provider.GCP, "europe-west4", 0.12)
IOWA = place("iowa", Provider.GCP, "us-central1", 0.12)
CELLAR = place("cellar", Provider.ONPREM, "zurich", 0.0)


@pytest.mark.parametrize(
    ("source", "target", "usd"),
    [
        (EAST, EAST_TOO, 0.0),
        (EAST, TOKYO, 0.02),
        (TOKYO, EAST, 0.09),
        (EAST, HOLLAND, 0.09),
        (HOLLAND, EAST, 0.12),
        (HOLLAND, IOWA, 0.05),
        (CELLAR, EAST, 0.0),
        (EAST, None, 0.09),
    ],
)
def test_list_prices_between_sites(source: SourceSpec, target: SourceSpec | None, usd: float) -> None:
    assert usd_per_gb(source, target) == usd


def test_a_copy_by_way_of_somewhere_else_pays_for_each_leg_and_for_reading_back() -> None:
    assert relayed_usd_per_gb(HOLLAND, EAST, EAST, 1) == pytest.approx(0.12), "at the target it is one leg"
    assert relayed_usd_per_gb(HOLLAND, EAST, None, 1) == pytest.approx(0.12 + 0.09)
    assert relayed_usd_per_gb(HOLLAND, EAST, None, 0) == pytest.approx(0.12)
    assert relayed_usd_per_gb(CELLAR, TOKYO, EAST, 0) == pytest.approx(0.02)
