"""A release comes to exist at every store that should have it, whole and verified, or not at all."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pytest

from clusters.launch.stores import environ_for_all
from clusters.spec import Provider
from clusters.storage import Verify
from tests.local_stores import running
from tests.weights.making import directory, held, large, published, release_of, terms
from tests.weights.releases import FILES, MODEL, content
from weights.copying.deliver import Delivery, Terms, deliver
from weights.copying.plan import plan
from weights.copying.replicate import Ask, Replica, replicate, survey
from weights.errors import Corrupt, NotFound, ReleaseMissing, WeightsError
from weights.manifest import MANIFEST, PART, Manifest
from weights.node.cache import fetch
from weights.releases.registry import has_release, release_prefix
from weights.store import Store, open_store

SIZE = sum(map(len, FILES.values()))
LARGE = {"model.safetensors": large(1, 2 * PART + 5), "config.json": b"{}"}


class Meter:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.announced: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()

    def begin(self, site: str, size: int) -> None:
        self.announced[site] += size

    def advance(self, site: str, size: int) -> None:
        self.moved[site] += size


class Fleet:
    """Directories that stand for the stores of sites. `price` counts how often a byte leaves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.meter = Meter()
        self.verify = Verify.FULL

    def opened(self, site: str) -> Store:
        if not (self.root / site).is_dir():
            raise NotFound(f"file://{site}", "open", "no such directory")
        return directory(self.root / site)

    def add(self, *sites: str) -> None:
        for site in sites:
            (self.root / site).mkdir(parents=True)

    def terms(self, site: str) -> AbstractContextManager[Terms]:
        return terms(self.verify, self.meter)

    def replicate(
        self,
        manifest: Manifest,
        *sites: str,
        price: Callable[[str, str], float] = lambda source, target: 0.09,
        asked: Sequence[str] = (),
    ) -> dict[str, Delivery | WeightsError]:
        seen = survey(manifest.model, manifest.release, asked or ("home", *sites), self.opened)
        wanted = [seen.inventories[site] for site in sites if site in seen.inventories]
        plans = plan(seen.manifest, wanted, seen.holders, price, None)
        assert not [step.problem for step in plans if step.problem]
        replicas: tuple[Replica, ...] = replicate(seen, plans, self.opened, self.terms, price, Ask("test"))
        outcomes = {replica.site: replica.outcome for replica in replicas} | dict(seen.failed)
        assert all(isinstance(outcome, (Delivery, WeightsError)) for outcome in outcomes.values())
        return outcomes  # type: ignore[return-value]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet(tmp_path)
    fleet.add("home")
    return fleet


def paths(outcome: Delivery | WeightsError) -> tuple[set[str], set[str], set[str]]:
    assert isinstance(outcome, Delivery), outcome
    return tuple({file.path for file in files} for files in (outcome.sent, outcome.cloned, outcome.kept))  # type: ignore[return-value]


def test_every_site_gets_the_release(fleet: Fleet) -> None:
    fleet.add("one", "two")
    manifest = published(fleet.opened("home"))
    outcomes = fleet.replicate(manifest, "one", "two")
    for site in ("one", "two"):
        assert paths(outcomes[site]) == (set(FILES), set(), set())
        assert held(fleet.opened(site), manifest) == FILES
        assert has_release(fleet.opened(site), MODEL, manifest.release)
        assert fleet.meter.announced[site] == fleet.meter.moved[site] == 2 * SIZE


def test_a_second_time_moves_nothing(fleet: Fleet) -> None:
    fleet.add("one")
    manifest = published(fleet.opened("home"))
    fleet.replicate(manifest, "one")
    (again,) = fleet.replicate(manifest, "one").values()
    assert paths(again) == (set(), set(), set(FILES))
    assert isinstance(again, Delivery)
    assert again.size == 0


def test_a_fine_tune_moves_only_the_file_that_changed(fleet: Fleet) -> None:
    fleet.add("one")
    shards = {f"model-{number}-of-8.safetensors": large(number, 1000) for number in range(8)}
    fleet.replicate(published(fleet.opened("home"), shards), "one")
    tuned = shards | {"model-3-of-8.safetensors": large(99, 1000)}
    manifest = published(fleet.opened("home"), tuned)
    (outcome,) = fleet.replicate(manifest, "one").values()
    assert paths(outcome) == ({"model-3-of-8.safetensors"}, set(shards) - {"model-3-of-8.safetensors"}, set())
    assert isinstance(outcome, Delivery)
    assert outcome.size == 1000
    assert held(fleet.opened("one"), manifest) == tuned


def test_a_site_that_fails_stops_no_other(fleet: Fleet) -> None:
    fleet.add("works")
    manifest = published(fleet.opened("home"))
    outcomes = fleet.replicate(manifest, "fails", "works")
    assert isinstance(outcomes["fails"], NotFound)
    assert paths(outcomes["works"]) == (set(FILES), set(), set())


def test_a_site_may_copy_from_one_that_just_received_it(fleet: Fleet) -> None:
    fleet.add("far", "further")
    prices = {("home", "far"): 0.12, ("home", "further"): 0.13, ("far", "further"): 0.02}
    manifest = published(fleet.opened("home"), LARGE)
    outcomes = fleet.replicate(manifest, "further", "far", price=lambda a, b: prices.get((a, b), 1.0))
    assert paths(outcomes["further"])[0] == set(LARGE)
    assert held(fleet.opened("further"), manifest) == LARGE


def test_losing_home_loses_nothing_that_a_site_still_has(fleet: Fleet) -> None:
    fleet.add("one", "two")
    manifest = published(fleet.opened("home"))
    fleet.replicate(manifest, "one")
    (fleet.root / "home").rename(fleet.root / "gone")
    outcomes = fleet.replicate(manifest, "two", asked=("home", "one", "two"))
    assert paths(outcomes["two"])[0] == set(FILES)


def test_what_one_source_has_wrong_another_may_have_right(fleet: Fleet) -> None:
    fleet.add("one", "two")
    manifest = published(fleet.opened("home"), LARGE)
    fleet.replicate(manifest, "one")
    key = release_prefix(MODEL, manifest.release) + "model.safetensors"
    fleet.opened("home").write(key, bytes(len(LARGE["model.safetensors"])))
    outcomes = fleet.replicate(manifest, "two", asked=("home", "one", "two"))
    assert held(fleet.opened("two"), manifest) == LARGE
    assert paths(outcomes["two"])[0] == set(LARGE)


def test_corrupt_bytes_at_the_only_source_go_nowhere(fleet: Fleet) -> None:
    fleet.add("one")
    manifest = published(fleet.opened("home"), LARGE)
    key = release_prefix(MODEL, manifest.release) + "model.safetensors"
    fleet.opened("home").write(key, bytes(len(LARGE["model.safetensors"])))
    (outcome,) = fleet.replicate(manifest, "one").values()
    assert isinstance(outcome, Corrupt)
    assert (outcome.file, outcome.place) == ("model.safetensors", fleet.opened("home").url)
    assert not has_release(fleet.opened("one"), MODEL, manifest.release)


def test_a_file_that_lies_there_without_a_marker_is_read_before_it_is_believed(fleet: Fleet) -> None:
    fleet.add("one")
    manifest = published(fleet.opened("home"))
    prefix = release_prefix(MODEL, manifest.release)
    fleet.opened("one").write(prefix + "model-1.safetensors", FILES["model-1.safetensors"])
    fleet.opened("one").write(prefix + "model-2.safetensors", bytes(len(FILES["model-2.safetensors"])))
    (outcome,) = fleet.replicate(manifest, "one").values()
    assert paths(outcome) == (set(FILES) - {"model-1.safetensors"}, set(), {"model-1.safetensors"})
    assert held(fleet.opened("one"), manifest) == FILES


def test_a_file_that_was_lost_comes_back(fleet: Fleet) -> None:
    fleet.add("one")
    manifest = published(fleet.opened("home"))
    fleet.replicate(manifest, "one")
    fleet.opened("one").delete(release_prefix(MODEL, manifest.release) + "config.json")
    (outcome,) = fleet.replicate(manifest, "one").values()
    assert paths(outcome)[0] == {"config.json"}


def test_a_wrong_clone_is_replaced_by_the_right_bytes(fleet: Fleet) -> None:
    """An older release was damaged where it lies: its files are copied inside the store, and then read."""
    fleet.add("one")
    first = published(fleet.opened("home"), LARGE)
    fleet.replicate(first, "one")
    key = release_prefix(MODEL, first.release) + "model.safetensors"
    fleet.opened("one").write(key, bytes(len(LARGE["model.safetensors"])))
    second = published(fleet.opened("home"), LARGE | {"config.json": b"[]"})
    (outcome,) = fleet.replicate(second, "one").values()
    assert paths(outcome)[0] == set(LARGE)
    assert held(fleet.opened("one"), second) == LARGE | {"config.json": b"[]"}


@pytest.mark.parametrize("how", Verify)
def test_less_reading_back_is_a_choice(fleet: Fleet, how: Verify) -> None:
    fleet.add("one")
    fleet.verify = how
    manifest = published(fleet.opened("home"), LARGE)
    fleet.replicate(manifest, "one")
    assert held(fleet.opened("one"), manifest) == LARGE
    assert fleet.meter.announced == fleet.meter.moved


def test_a_release_that_nobody_has_must_be_pushed(fleet: Fleet) -> None:
    with pytest.raises(ReleaseMissing, match=f"rayfleet weights push {MODEL}"):
        fleet.replicate(release_of(), "home", asked=("home",))


class Dying:
    """A source that breaks after so many parts."""

    def __init__(self, content: dict[str, bytes], parts: int) -> None:
        self.content = content
        self.left = parts

    def read(self, file, part):  # type: ignore[no-untyped-def]
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.content[file.path][part.offset : part.offset + part.length]


def test_what_landed_of_a_cut_copy_is_not_sent_again(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add("one")
    files = {"model.safetensors": large(3, 4 * PART)}
    manifest = release_of(files)
    store = fleet.opened("one")
    with terms(lanes=1, journal=tmp_path / "journal") as first, pytest.raises(KeyboardInterrupt):
        deliver(manifest, Dying(files, 3), store, "one", first)
    assert not has_release(store, MODEL, manifest.release)
    with terms(lanes=1, journal=tmp_path / "journal") as second:
        delivery = deliver(manifest, Dying(files, 1), fleet.opened("one"), "one", second)
    assert delivery.size == PART
    assert held(store, manifest) == files
    assert MANIFEST in {item.key.rpartition("/")[2] for item in store.objects("")}


def test_from_on_prem_to_both_clouds_and_onto_a_node(tmp_path: Path) -> None:
    with running(*Provider, directory=tmp_path / "stores") as stores:
        environ = environ_for_all(stores.values(), tmp_path / "environ")
        opened = cache(lambda site: open_store(stores[Provider(site)].spec, environ))
        manifest = published(opened("onprem"), LARGE)
        seen = survey(MODEL, manifest.release, ("onprem", "aws", "gcp"), opened)
        plans = plan(manifest, [seen.inventories[site] for site in ("aws", "gcp")], seen.holders, lambda *_: 0.0, None)
        for replica in replicate(seen, plans, opened, lambda _: terms(), lambda *_: 0.0, Ask("test")):
            assert isinstance(replica.outcome, Delivery), replica.outcome
            assert held(opened(replica.site), manifest) == LARGE
            node = tmp_path / replica.site
            path = fetch(
                opened(replica.site),
                MODEL,
                manifest.release,
                node,
                site=replica.site,
                parallel_parts=4,
                cache_bytes=None,
            )
            assert content(path) == LARGE
