"""What is collected, and above all what never is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.store import directory_store
from tests.weights.shelves import NOW, described, shelve
from weights.errors import StoreError
from weights.manifest import MANIFEST, Manifest
from weights.releases.garbage import (
    DAY_S,
    LEASE_S,
    Garbage,
    Holdings,
    collect,
    everything_of,
    remove,
    take_stock,
)
from weights.releases.lease import lease_key
from weights.releases.registry import Release, has_release, release_of, release_prefix
from weights.store import Stored, Unfinished
from weights.stores.directory import DirectoryStore

NOW_S = NOW.timestamp()
OLD = 365 * DAY_S


def stored(key: str, age_s: float) -> Stored:
    return Stored(key, 10, "v", NOW_S - age_s)


def collected(
    objects: Iterable[Stored],
    unfinished: Iterable[Unfinished] = (),
    manifests: Mapping[Release, Manifest] | None = None,
    wanted: Iterable[Release] = (),
    keep: int = 1,
) -> dict[str, str]:
    holdings = Holdings(tuple(objects), tuple(unfinished), manifests or {})
    return {one.item.key: one.why for one in collect(holdings, frozenset(wanted), keep, NOW_S)}


@pytest.mark.parametrize(
    ("key", "limit_s"),
    [
        ("incoming/0a1b/bytes/model.safetensors", 7 * DAY_S),
        ("quarantine/tiny/0123456789ab/20261121T103000Z/model.safetensors", 30 * DAY_S),
        (".probe-0a1b", 7 * DAY_S),
        (lease_key("tiny", "0123456789ab"), LEASE_S),
        (lease_key("tiny", "0123456789ab") + "-0a1b", LEASE_S),
        ("models/tiny/0123456789ab.caches/vllm-L4.tar", 7 * DAY_S),
        ("models/tiny/0123456789ab/model.safetensors", 7 * DAY_S),
    ],
)
def test_what_was_left_behind_goes_when_it_is_old(key: str, limit_s: float) -> None:
    assert collected([stored(key, limit_s)]) == {}
    assert collected([stored(key, limit_s + 1)]).keys() == {key}


@pytest.mark.parametrize(
    "key", ["models/tiny/aliases/prod.json", "models/tiny/0123456789abc/x", "README", "models/tiny/other", "backup/x"]
)
def test_what_is_not_known_stays(key: str) -> None:
    assert collected([stored(key, OLD)]) == {}


def test_a_copy_that_still_gets_files_keeps_its_old_ones() -> None:
    prefix = release_prefix("tiny", "0123456789ab")
    assert collected([stored(prefix + "a", OLD), stored(prefix + "b", DAY_S)]) == {}
    assert collected([stored("incoming/0a1b/bytes/a", OLD), stored("incoming/0a1b/files/b", DAY_S)]) == {}
    assert collected([stored("incoming/0a1b/bytes/a", OLD), stored("incoming/2c3d/files/b", DAY_S)]).keys() == {
        "incoming/0a1b/bytes/a"
    }


def test_who_has_a_lease_keeps_what_he_copies() -> None:
    file = stored(release_prefix("tiny", "0123456789ab") + "a", OLD)
    upload = Unfinished(file.key + "b", "token", NOW_S - OLD)
    lease = stored(lease_key("tiny", "0123456789ab"), 50)
    assert collected([file, lease], [upload]) == {}
    assert collected([file], [upload]).keys() == {file.key, upload.key}
    expired = stored(lease.key, LEASE_S + 1)
    assert collected([file, expired], [upload]).keys() == {file.key, upload.key, expired.key}


def test_caches_stay_with_their_release() -> None:
    made = described("tiny")
    marker = stored(release_prefix("tiny", made.release) + MANIFEST, OLD)
    cache = stored(f"models/tiny/{made.release}.caches/vllm-L4.tar", OLD)
    assert collected([marker, cache], manifests={("tiny", made.release): made}) == {}
    assert collected([cache], wanted=[("tiny", made.release)]) == {}
    assert collected([cache]).keys() == {cache.key}


def test_uploads_go_when_they_are_old() -> None:
    young, old = Unfinished("a", "token", NOW_S - 7 * DAY_S), Unfinished("b", "token", NOW_S - 7 * DAY_S - 1)
    assert collected([], [young, old]).keys() == {"b"}


def test_the_newest_the_wanted_and_their_parents_stay() -> None:
    made = [described("tiny", {"n": b"%d" % day}, NOW - timedelta(days=day)) for day in range(6)]
    child = described("tiny", {"n": b"child"}, NOW - timedelta(days=9), made[5].release)
    manifests = {("tiny", each.release): each for each in (*made, child)}
    objects = [stored(release_prefix(*each) + name, 1) for each in manifests for name in (MANIFEST, "n")]
    found = collected(objects, manifests=manifests, wanted=[("tiny", child.release)], keep=2)
    assert {place[0][1] for key in found if (place := release_of(key))} == {
        made[2].release,
        made[3].release,
        made[4].release,
    }
    assert "nor among the newest" in next(iter(found.values()))


def test_a_release_whose_manifest_can_not_be_read_stays() -> None:
    objects = [stored(release_prefix("tiny", "0123456789ab") + name, OLD) for name in (MANIFEST, "n")]
    assert collected(objects) == {}


@dataclass(frozen=True)
class World:
    objects: tuple[Stored, ...]
    unfinished: tuple[Unfinished, ...]
    manifests: Mapping[Release, Manifest]
    wanted: frozenset[Release]
    leased: frozenset[Release]
    keep: int


AGES = st.sampled_from([0.0, 30.0, LEASE_S - 1, LEASE_S + 1, DAY_S, 7 * DAY_S - 1, 7 * DAY_S + 1, 31 * DAY_S, OLD])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(0, 8))
    manifests: dict[Release, Manifest] = {}
    for number in range(count):
        model, age = draw(st.sampled_from(["one", "two"])), draw(st.integers(0, 100))
        parents = [release for other, release in manifests if other == model]
        parent = draw(st.none() | st.sampled_from(parents)) if parents else None
        made = described(model, {"n": b"%d" % number}, NOW - timedelta(days=age), parent)
        manifests[model, made.release] = made
    every = list(manifests)
    some = st.frozensets(st.sampled_from(every)) if every else st.just(frozenset[Release]())
    unpublished, unreadable, leased, wanted = draw(some), draw(some), draw(some), draw(some)
    objects = [stored(release_prefix(*each) + "n", draw(AGES)) for each in every]
    objects += [stored(release_prefix(*each) + MANIFEST, draw(AGES)) for each in every if each not in unpublished]
    objects += [stored(lease_key(*each), draw(st.floats(0, 60))) for each in leased]
    objects += [stored(f"models/{model}/{release}.caches/x", draw(AGES)) for model, release in every]
    objects += [stored(f"models/{model}/aliases/prod.json", draw(AGES)) for model in ("one", "two")]
    objects += [stored(f"{place}/{number}/x", draw(AGES)) for place in ("incoming", "quarantine") for number in (1, 2)]
    uploads = [Unfinished(release_prefix(*each) + "m", "token", NOW_S - draw(AGES)) for each in every]
    readable = {each: made for each, made in manifests.items() if each not in unpublished | unreadable}
    shuffled = draw(st.permutations(objects))
    return World(tuple(shuffled), tuple(uploads), readable, wanted, leased, draw(st.integers(1, 3)))


@given(worlds())
def test_nothing_that_somebody_needs_is_ever_collected(world: World) -> None:
    holdings = Holdings(world.objects, world.unfinished, world.manifests)
    found = collect(holdings, world.wanted, world.keep, NOW_S)
    objects = {one.item.key for one in found if isinstance(one.item, Stored)}
    of_releases = {place[0] for key in objects if (place := release_of(key))}
    parents = {
        (model, made.parent) for (model, release), made in world.manifests.items() if (model, release) in world.wanted
    }
    assert not of_releases & world.wanted
    assert not of_releases & world.leased
    assert not of_releases & parents
    assert not any("/aliases/" in key for key in objects)
    for model in ("one", "two"):
        newest = sorted(
            (each for each in world.manifests if each[0] == model),
            key=lambda each: (world.manifests[each].created, each),
            reverse=True,
        )
        assert not of_releases & set(newest[: world.keep])
    for item in world.objects:
        place = release_of(item.key)
        if place and item.key not in objects:
            assert place[0] not in of_releases, "a release goes whole or stays whole"
        complete = place is not None and place[0] in world.manifests
        if item.key in objects and not complete:
            assert NOW_S - item.modified > (LEASE_S if item.key.endswith(".lease") else 7 * DAY_S)
    assert all(NOW_S - one.item.begun > 7 * DAY_S for one in found if isinstance(one.item, Unfinished))


@pytest.fixture
def home(tmp_path: Path) -> DirectoryStore:
    return directory_store(tmp_path / "home")


def test_a_store_is_swept_of_what_is_old_and_keeps_the_rest(home: DirectoryStore) -> None:
    made = [shelve(home, "tiny", {"n": b"%d" % day}, NOW - timedelta(days=day)) for day in range(5)]
    home.write("incoming/0a1b/bytes/x", b"x")
    holdings = take_stock(home)
    assert holdings.models == ("tiny",)
    remove(home, collect(holdings, {("tiny", made[4].release)}, 3, NOW_S))
    assert [has_release(home, "tiny", each.release) for each in made] == [True, True, True, False, True]
    assert list(home.objects(release_prefix("tiny", made[3].release))) == []
    assert home.find("incoming/0a1b/bytes/x") is not None


def test_what_a_broken_upload_left_is_aborted(home: DirectoryStore) -> None:
    upload = home.upload(release_prefix("tiny", "0123456789ab") + "m", 10)
    upload.send(0, b"0123456789")
    found = everything_of(home, "tiny", "0123456789ab", "asked for")
    assert len(found) == len(list(home.unfinished("")))
    remove(home, found)
    assert list(home.unfinished("")) == []


def test_a_release_stops_to_exist_before_its_files_go(home: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = shelve(home, "tiny", {f"{number}": b"x" for number in range(20)})
    delete = home.delete

    def failing(key: str) -> None:
        if not key.endswith(MANIFEST):
            raise StoreError(home.url, f"delete {key}", "it is down")
        delete(key)

    monkeypatch.setattr(home, "delete", failing)
    found: tuple[Garbage, ...] = everything_of(home, "tiny", manifest.release, "asked for")
    with pytest.raises(StoreError):
        remove(home, sorted(found, key=lambda one: one.is_marker))
    assert not has_release(home, "tiny", manifest.release)
