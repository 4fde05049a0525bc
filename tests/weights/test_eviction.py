"""What leaves a node's cache, what never does, and a disk that is full in earnest."""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.weights.making import directory, large, published
from tests.weights.readers import Failing, Seen, asked
from tests.weights.releases import content
from weights.errors import DiskFull, StoreError
from weights.manifest import Manifest
from weights.node.cache import cached, fetch
from weights.node.eviction import STALE_S, Claim, Entry, choose_evictions, make_room, observe
from weights.node.slot import Slot
from weights.store import Store

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 60
NOW = 1_800_000_000.0
HOUR = 3600.0
MIB = 2**20


def entry(release: str, hours: float, size: int = 10, claim: Claim | None = None, model: str = "chat") -> Entry:
    return Entry(model, release, size, NOW - hours * HOUR, claim=claim)


def cut_short(release: str, hours: float, claim: Claim | None = None) -> Entry:
    return Entry("chat", release, 10, NOW - hours * HOUR, partial=True, claim=claim)


def victims(entries: list[Entry], needed: int, budget: int) -> list[str]:
    return [victim.release for victim in choose_evictions(entries, needed, budget, NOW).victims]


def test_nothing_goes_while_there_is_room() -> None:
    assert victims([entry("a", 1), entry("b", 2)], needed=10, budget=30) == []


def test_what_was_used_least_recently_goes_first_and_no_more_than_it_takes() -> None:
    entries = [entry("new", 1), entry("oldest", 9), entry("old", 5)]
    assert victims(entries, needed=10, budget=30) == ["oldest"]
    assert victims(entries, needed=11, budget=30) == ["oldest", "old"]


def test_what_was_cut_short_a_day_ago_goes_before_all_else_and_what_was_so_today_stays() -> None:
    entries = [entry("oldest", 99), cut_short("stale", STALE_S / HOUR + 1), cut_short("today", 1)]
    assert victims(entries, needed=10, budget=30) == ["stale"]
    assert victims(entries, needed=30, budget=30) == ["stale", "oldest"]


@pytest.mark.parametrize("claim", Claim)
def test_nothing_goes_that_somebody_claims(claim: Claim) -> None:
    claimed = cut_short("a", 99, claim) if claim is Claim.FETCHED else entry("a", 99, claim=claim)
    eviction = choose_evictions([claimed, entry("b", 1, model="other")], 20, 20, NOW)
    assert [victim.release for victim in eviction.victims] == ["b"]
    assert eviction.lacking == 10
    assert f"is {claim}" in eviction.reason


def test_a_model_in_use_keeps_what_it_would_go_back_to() -> None:
    entries = [entry("now", 1, claim=Claim.USED), entry("before", 50), entry("long ago", 60)]
    assert victims(entries, needed=10, budget=30) == ["long ago"]
    assert victims(entries, needed=20, budget=30) == ["long ago"]


def test_what_was_fetched_to_come_is_not_what_a_model_would_go_back_to() -> None:
    """The replicator pins what it prefetches, and asks for it again and again."""
    entries = [entry("now", 1, claim=Claim.USED), entry("next", 2, claim=Claim.KEPT), entry("before", 50)]
    assert victims(entries, needed=10, budget=30) == []
    entries[1] = entry("next", 0.1)
    assert victims(entries, needed=10, budget=30) == ["next"]


def test_a_model_that_nobody_uses_protects_nothing() -> None:
    assert victims([entry("now", 1), entry("before", 50)], needed=20, budget=20) == ["before", "now"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return directory(tmp_path / "store")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """48 MiB and 64 files, directories among them."""
    yield from _mounted(tmp_path / "disk", "size=48m,nr_inodes=64")


def _mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def release_of(store: Store, model: str, mib: int, seed: int = 0) -> Manifest:
    return published(store, {"model.safetensors": large(seed, mib * MIB)}, model)


def names(cache: Path) -> set[str]:
    return {one.model for one in cached(cache)}


def test_the_budget_makes_the_least_recently_used_go(tmp_path: Path, store: Store) -> None:
    cache = tmp_path / "cache"
    releases = {model: release_of(store, model, 1).release for model in ("a", "b", "c", "d")}
    for model in ("a", "b", "c"):
        fetch(store, model, releases[model], cache, cache_bytes=4 * MIB)
    fetch(store, "a", releases["a"], cache)
    fetch(store, "d", releases["d"], cache, cache_bytes=3 * MIB + 100_000)
    assert names(cache) == {"a", "c", "d"}


def test_pinned_releases_stay_and_the_error_names_them(tmp_path: Path, store: Store) -> None:
    cache = tmp_path / "cache"
    one, two = release_of(store, "a", 1), release_of(store, "b", 1)
    fetch(store, "a", one.release, cache)
    with pytest.raises(DiskFull, match=f"a/{one.release} is pinned"):
        fetch(store, "b", two.release, cache, cache_bytes=2 * MIB - 1, keep=frozenset((f"a/{one.release}",)))
    assert names(cache) == {"a"}


def test_what_a_process_holds_stays_until_the_process_ends(tmp_path: Path, store: Store) -> None:
    cache = tmp_path / "cache"
    one, two = release_of(store, "a", 1), release_of(store, "b", 1)
    fetch(store, "a", one.release, cache)
    here, there = SPAWN.Pipe()
    holder = SPAWN.Process(target=_hold, args=(Slot(cache, "a", one.release), there))
    holder.start()
    assert here.poll(WAIT_S)
    here.recv()
    with pytest.raises(DiskFull, match=f"a/{one.release} is in use"):
        fetch(store, "b", two.release, cache, cache_bytes=2 * MIB - 1)
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(WAIT_S)
    fetch(store, "b", two.release, cache, cache_bytes=2 * MIB - 1)
    assert names(cache) == {"b"}


def test_what_compiled_for_a_release_counts_and_goes_with_it(tmp_path: Path, store: Store) -> None:
    cache = tmp_path / "cache"
    one, two = release_of(store, "a", 1), release_of(store, "b", 1)
    fetch(store, "a", one.release, cache)
    slot = Slot(cache, "a", one.release)
    slot.caches.mkdir()
    (slot.caches / "graph").write_bytes(bytes(MIB))
    assert [found.size for found in observe(cache, frozenset())] == [pytest.approx(2 * MIB, rel=0.02)]
    fetch(store, "b", two.release, cache, cache_bytes=2 * MIB)
    assert not slot.complete.exists()
    assert not slot.caches.exists()


def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    trash = tmp_path / "a" / ".trash-1"
    trash.mkdir(parents=True)
    (trash / "file").write_bytes(b"1")
    make_room(tmp_path, 1, None, frozenset(), NOW)
    assert not trash.exists()


def test_a_full_disk_makes_room(small_disk: Path, store: Store) -> None:
    one, two = release_of(store, "a", 30), release_of(store, "b", 30)
    fetch(store, "a", one.release, small_disk)
    path = fetch(store, "b", two.release, small_disk)
    assert content(path) == {"model.safetensors": large(0, 30 * MIB)}
    assert names(small_disk) == {"b"}


def test_a_disk_full_of_what_is_in_use_is_an_error_and_nothing_goes(small_disk: Path, store: Store) -> None:
    one, two, three = release_of(store, "a", 25), release_of(store, "b", 30), release_of(store, "c", 10)
    fetch(store, "a", one.release, small_disk)
    fetch(store, "c", three.release, small_disk)
    descriptor = Slot(small_disk, "a", one.release).hold()
    with pytest.raises(DiskFull, match=rf"31,457,280 bytes, .* are free: .*a/{one.release} is in use"):
        fetch(store, "b", two.release, small_disk)
    assert names(small_disk) == {"a", "c"}
    os.close(descriptor)
    fetch(store, "b", two.release, small_disk)
    assert names(small_disk) == {"b"}


def test_a_disk_that_is_full_though_it_has_free_bytes_makes_room_once(small_disk: Path, store: Store) -> None:
    """As a quota has it: here there are no more names for files."""
    many = published(store, {f"file-{number}": b"1" for number in range(40)}, "many")
    more = published(store, {f"file-{number}": b"2" for number in range(40)}, "more")
    fetch(store, "many", many.release, small_disk)
    fetch(store, "more", more.release, small_disk)
    assert names(small_disk) == {"more"}
    too_many = published(store, {f"file-{number}": b"3" for number in range(80)}, "too-many")
    with pytest.raises(DiskFull, match="No space left on device"):
        fetch(store, "too-many", too_many.release, small_disk)
    assert not Slot(small_disk, "too-many", too_many.release).partial.exists()


def test_what_was_fetched_before_the_disk_was_full_is_not_fetched_again(
    tmp_path: Path, small_disk: Path, store: Store
) -> None:
    one = published(store, {"a": large(0, 20 * MIB), "b": large(1, 10 * MIB)}, "a")
    failing = Failing(tmp_path / "store", tmp_path / "log", "/b", after=0)
    with pytest.raises(StoreError):
        fetch(failing, "a", one.release, small_disk, parallel_parts=1)
    partial = Slot(small_disk, "a", one.release).partial
    (partial / "b").unlink()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(25 * MIB))
    with pytest.raises(DiskFull):
        fetch(store, "a", one.release, small_disk)
    filler.unlink()
    fetch(Seen(tmp_path / "store", tmp_path / "seen"), "a", one.release, small_disk)
    assert {path for path, _, _ in asked(tmp_path / "seen")} == {"b"}


def _hold(slot: Slot, pipe: Connection) -> None:
    slot.hold()
    pipe.send("held")
    pipe.recv()
