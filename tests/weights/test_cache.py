"""A node loads verified bytes or none, and fetches them once."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from clusters.spec import StoreSpec
from tests.fakes.store import CountingStore, StuckStore, directory_store
from tests.weights.releases import FILES, MODEL, NOW, content, pushed
from weights.cache import fetch
from weights.errors import Corrupt, DiskFull, ReleaseMissing
from weights.manifest import File, manifest_of
from weights.registry import publish, release_prefix

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 30


def nothing_of(release: str, cache: Path) -> bool:
    """The lock may stay."""
    return [path.name for path in (cache / MODEL).iterdir()] in ([], [f"{release}.lock"])


def test_a_release_is_fetched(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "store")
    release = pushed(store, tmp_path).release
    path = fetch(store, MODEL, release, tmp_path / "cache")
    assert path == tmp_path / "cache" / MODEL / release
    assert content(path) == FILES


def test_a_fetched_release_needs_no_store(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "store")
    release = pushed(store, tmp_path).release
    fetch(store, MODEL, release, tmp_path / "cache")
    shutil.rmtree(tmp_path / "store")
    assert content(fetch(store, MODEL, release, tmp_path / "cache")) == FILES


def test_a_file_that_was_cut_since_is_fetched_again(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "store")
    release = pushed(store, tmp_path).release
    path = fetch(store, MODEL, release, tmp_path / "cache")
    (path / "model-1.safetensors").write_bytes(b"")
    assert content(fetch(store, MODEL, release, tmp_path / "cache")) == FILES


@pytest.mark.parametrize(
    "damage", [lambda good: bytes([good[0] ^ 1]) + good[1:], lambda good: good[:-1], lambda good: b""]
)
def test_a_corrupt_object_is_named_and_nothing_is_left(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = directory_store(tmp_path / "store")
    release = pushed(store, tmp_path).release
    store.write(release_prefix(MODEL, release) + "model-2.safetensors", damage(FILES["model-2.safetensors"]))
    with pytest.raises(Corrupt, match=r"model-2\.safetensors at file://.*/store is corrupt"):
        fetch(store, MODEL, release, tmp_path / "cache")
    assert nothing_of(release, tmp_path / "cache")


def test_a_missing_release_says_what_mends_it(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "store")
    with pytest.raises(ReleaseMissing, match="rayfleet weights replicate tiny --site here"):
        fetch(store, MODEL, "0" * 12, tmp_path / "cache", site="here")
    assert nothing_of("0" * 12, tmp_path / "cache")


def test_a_release_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "store")
    huge = manifest_of(MODEL, [File(path="huge", size=10**18, sha256="0" * 64)], "s", None, NOW)
    publish(store, huge)
    with pytest.raises(DiskFull, match="1,000,000,000,000,000,000 bytes"):
        fetch(store, MODEL, huge.release, tmp_path / "cache")
    assert nothing_of(huge.release, tmp_path / "cache")


def test_processes_that_ask_at_once_fetch_once(tmp_path: Path) -> None:
    release = pushed(directory_store(tmp_path / "store"), tmp_path).release
    barrier = SPAWN.Barrier(3)
    arguments = (tmp_path / "store", release, tmp_path / "cache", tmp_path / "reads", barrier)
    processes = [SPAWN.Process(target=_fetch_counting, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT_S)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    reads = (tmp_path / "reads").read_text().split()
    expected = [name for name, stored in FILES.items() if stored] + ["manifest.json"]
    assert sorted(reads) == sorted(release_prefix(MODEL, release) + name for name in expected)


def test_a_killed_fetch_leaves_no_release_and_is_swept(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "store")
    release = pushed(store, tmp_path).release
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_fetch_stuck, args=(tmp_path / "store", release, tmp_path / "cache", there))
    process.start()
    assert here.poll(WAIT_S)
    os.kill(here.recv(), signal.SIGKILL)
    process.join(WAIT_S)
    model = tmp_path / "cache" / MODEL
    assert not (model / release).exists()
    assert [path.name for path in model.glob("*.partial-*")] == [f"{release}.partial-{process.pid}"]

    assert content(fetch(store, MODEL, release, tmp_path / "cache")) == FILES
    assert not list(model.glob("*.partial-*"))


def test_what_is_left_of_other_releases_is_swept_too(tmp_path: Path) -> None:
    store = directory_store(tmp_path / "store")
    release = pushed(store, tmp_path).release
    left = tmp_path / "cache" / MODEL / f"{'0' * 12}.partial-1"
    left.mkdir(parents=True)
    fetch(store, MODEL, release, tmp_path / "cache")
    assert not left.exists()


def _fetch_counting(store: Path, release: str, cache: Path, log: Path, barrier: Barrier) -> None:
    counting = CountingStore(StoreSpec(url=f"file://{store}"), {}, log)
    barrier.wait(WAIT_S)
    fetch(counting, MODEL, release, cache)


def _fetch_stuck(store: Path, release: str, cache: Path, pipe: Connection) -> None:
    stuck = StuckStore(StoreSpec(url=f"file://{store}"), {}, "model-2.safetensors", pipe)
    fetch(stuck, MODEL, release, cache, parallel_files=1)
