"""A node loads verified bytes or none, fetches them once, and never the same part twice."""

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tests.weights.making import directory, published
from tests.weights.readers import Failing, Flipping, Seen, Stuck, asked, large_files
from tests.weights.releases import FILES, MODEL, NOW, content
from weights.errors import Corrupt, DiskFull, ReleaseMissing, StoreError
from weights.manifest import PART, File, Manifest, digest_of, digest_of_parts, manifest_of, part_bytes
from weights.node.cache import Cached, cached, fetch
from weights.node.slot import Slot
from weights.releases.registry import publish, release_prefix

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 120
KILLS = 6
SECOND = "model-2.safetensors"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "readings"


def parts_of(manifest: Manifest) -> set[tuple[str, int]]:
    return {(file.path, part.number) for file in manifest.files for part in file.layout() if part.length}


def parts_asked(log: Path) -> list[tuple[str, int]]:
    return [
        (path, number)
        for path, offset, length in asked(log)
        for number in range(offset // PART, -(-(offset + length) // PART))
    ]


def test_a_release_is_fetched_and_its_directory_says_what_it_is(tmp_path: Path) -> None:
    store = directory(tmp_path / "store")
    manifest = published(store)
    path = fetch(store, MODEL, manifest.release, tmp_path / "cache")
    assert path == tmp_path / "cache" / MODEL / manifest.release
    assert content(path) == FILES
    assert Manifest.from_json((path / "manifest.json").read_bytes()) == manifest


def test_consecutive_parts_are_read_at_once_and_each_only_once(tmp_path: Path, log: Path) -> None:
    store, files = directory(tmp_path / "store"), large_files(seed=1)
    manifest = published(store, files)
    assert content(fetch(Seen(tmp_path / "store", log), MODEL, manifest.release, tmp_path / "cache")) == files
    assert sorted(parts_asked(log)) == sorted(parts_of(manifest))
    assert (SECOND, 0, 4 * PART) in asked(log)


def test_a_fetched_release_needs_no_store(tmp_path: Path) -> None:
    store = directory(tmp_path / "store")
    release = published(store).release
    fetch(store, MODEL, release, tmp_path / "cache")
    shutil.rmtree(tmp_path / "store")
    assert content(fetch(store, MODEL, release, tmp_path / "cache")) == FILES


def test_a_file_that_was_cut_since_is_fetched_again(tmp_path: Path) -> None:
    store = directory(tmp_path / "store")
    release = published(store).release
    path = fetch(store, MODEL, release, tmp_path / "cache")
    (path / "model-1.safetensors").write_bytes(b"")
    assert content(fetch(store, MODEL, release, tmp_path / "cache")) == FILES


@pytest.mark.parametrize(
    "damage", [lambda good: bytes([good[0] ^ 1]) + good[1:], lambda good: good[:-1], lambda good: b""]
)
def test_a_corrupt_object_is_named_and_is_all_that_is_fetched_once_it_is_mended(
    tmp_path: Path, log: Path, damage: Callable[[bytes], bytes]
) -> None:
    store = directory(tmp_path / "store")
    release = published(store).release
    key = release_prefix(MODEL, release) + SECOND
    store.write(key, damage(FILES[SECOND]))
    with pytest.raises(Corrupt, match=r"model-2\.safetensors at file://.*/store is corrupt"):
        fetch(store, MODEL, release, tmp_path / "cache", parallel_parts=1)
    assert not (tmp_path / "cache" / MODEL / release).exists()

    store.write(key, FILES[SECOND])
    assert content(fetch(Seen(tmp_path / "store", log), MODEL, release, tmp_path / "cache")) == FILES


def test_a_part_that_was_changed_on_its_way_is_read_again_alone(tmp_path: Path, log: Path) -> None:
    store, files = directory(tmp_path / "store"), large_files(seed=2)
    manifest = published(store, files)
    flipping = Flipping(tmp_path / "store", log, SECOND, times=2)
    assert content(fetch(flipping, MODEL, manifest.release, tmp_path / "cache", parallel_parts=1)) == files
    again = sorted(parts_asked(log))
    for part in parts_of(manifest):
        again.remove(part)
    assert again == [(SECOND, 0)]


def test_a_store_that_fails_half_way_is_asked_only_for_the_rest(tmp_path: Path, log: Path) -> None:
    store, files = directory(tmp_path / "store"), large_files(seed=3)
    manifest = published(store, files)
    failing = Failing(tmp_path / "store", tmp_path / "other", SECOND, after=40 * 2**20)
    with pytest.raises(StoreError, match="the wire was cut"):
        fetch(failing, MODEL, manifest.release, tmp_path / "cache", parallel_parts=1)
    assert content(fetch(Seen(tmp_path / "store", log), MODEL, manifest.release, tmp_path / "cache")) == files
    assert not {("model-1.safetensors", 0), ("model-1.safetensors", 1), (SECOND, 0), (SECOND, 1)} & set(
        parts_asked(log)
    )
    assert {(SECOND, 2), (SECOND, 3), (SECOND, 4)} <= set(parts_asked(log))


def test_a_missing_release_says_what_mends_it(tmp_path: Path) -> None:
    store = directory(tmp_path / "store")
    with pytest.raises(ReleaseMissing, match="rayfleet weights replicate tiny --site here"):
        fetch(store, MODEL, "0" * 12, tmp_path / "cache", site="here")
    assert cached(tmp_path / "cache") == ()


def test_a_release_larger_than_the_disk_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store, size = directory(tmp_path / "store"), 10**15
    digests = ["0" * 64] * -(-size // part_bytes(size))
    huge = manifest_of(
        MODEL, [File(path="huge", size=size, digest=digest_of_parts(digests), parts=tuple(digests))], "s", None, NOW
    )
    publish(store, huge)
    with pytest.raises(DiskFull, match=r"1,000,000,000,000,000 bytes.*weights\.cache_gb"):
        fetch(store, MODEL, huge.release, tmp_path / "cache")
    assert not Slot(tmp_path / "cache", MODEL, huge.release).partial.exists()


def test_processes_that_ask_at_once_fetch_once(tmp_path: Path, log: Path) -> None:
    files = large_files(seed=4)
    manifest = published(directory(tmp_path / "store"), files)
    barrier = SPAWN.Barrier(3)
    arguments = (tmp_path / "store", manifest.release, tmp_path / "cache", log, barrier)
    processes = [SPAWN.Process(target=_fetch_together, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT_S)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(parts_asked(log)) == sorted(parts_of(manifest))


def test_a_killed_fetch_leaves_no_release_and_the_next_one_fetches_only_what_is_missing(
    tmp_path: Path, log: Path
) -> None:
    files, cache = large_files(seed=5), tmp_path / "cache"
    manifest = published(directory(tmp_path / "store"), files)
    seeded = random.Random(5)
    for _ in range(KILLS):
        pieces, lanes = seeded.randrange(83), seeded.choice([1, 2, 4])
        _kill_a_fetch(tmp_path / "store", manifest.release, cache, pieces, lanes)
        slot = Slot(cache, MODEL, manifest.release)
        assert not slot.complete.exists()
        kept = {
            (file.path, part.number)
            for file in manifest.files
            for part in file.layout()
            if digest_of((slot.partial / file.path).read_bytes()[part.offset :][: part.length]) == part.digest
        }
        log.unlink(missing_ok=True)
        seen = Seen(tmp_path / "store", log)
        assert content(fetch(seen, MODEL, manifest.release, cache)) == files
        assert sorted(parts_asked(log)) == sorted(parts_of(manifest) - kept)
        slot.discard(slot.complete)


def test_what_a_killed_fetch_left_is_not_believed(tmp_path: Path, log: Path) -> None:
    files, cache = large_files(seed=6), tmp_path / "cache"
    manifest = published(directory(tmp_path / "store"), files)
    _kill_a_fetch(tmp_path / "store", manifest.release, cache, pieces=60, lanes=1)
    with (Slot(cache, MODEL, manifest.release).partial / "model-1.safetensors").open("r+b") as file:
        file.write(bytes([files["model-1.safetensors"][0] ^ 1]))
    assert content(fetch(Seen(tmp_path / "store", log), MODEL, manifest.release, cache)) == files
    assert ("model-1.safetensors", 0) in parts_asked(log)
    assert ("model-1.safetensors", 1) not in parts_asked(log)


def test_what_a_node_has_is_told_with_how_much_of_it_is_there(tmp_path: Path) -> None:
    cache, store = tmp_path / "cache", directory(tmp_path / "store")
    small, half = published(store), published(store, large_files(seed=7), "other")
    fetch(store, MODEL, small.release, cache)
    failing = Failing(tmp_path / "store", tmp_path / "log", SECOND, after=24 * 2**20)
    with pytest.raises(StoreError):
        fetch(failing, "other", half.release, cache, parallel_parts=1)
    (cache / ".uploads").mkdir()
    other, tiny = sorted(cached(cache), key=lambda one: one.model)
    assert tiny == Cached(MODEL, small.release, small.size + len(small.to_json()), 1.0)
    assert (other.release, other.size) == (half.release, half.size)
    assert other.share == pytest.approx((17 + 24) / (17 + 65), abs=0.02)


def _kill_a_fetch(store: Path, release: str, cache: Path, pieces: int, lanes: int) -> None:
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_fetch_stuck, args=(store, release, cache, pieces, lanes, there))
    process.start()
    assert here.poll(WAIT_S)
    os.kill(here.recv(), signal.SIGKILL)
    process.join(WAIT_S)


def _fetch_together(store: Path, release: str, cache: Path, log: Path, barrier: Barrier) -> None:
    seen = Seen(store, log)
    barrier.wait(WAIT_S)
    fetch(seen, MODEL, release, cache)


def _fetch_stuck(store: Path, release: str, cache: Path, pieces: int, lanes: int, pipe: Connection) -> None:
    stuck = Stuck(store, cache.with_name("unread"), pieces, pipe)
    fetch(stuck, MODEL, release, cache, parallel_parts=lanes)
