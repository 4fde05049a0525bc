"""Whatever is wrong with a stored release is found, and only that is brought again."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.storage import Verify
from tests.fakes.store import directory_store
from tests.weights.shelves import FILES, NOW, path_of, shelve
from weights.copying.pace import Pace
from weights.copying.plan import needs
from weights.errors import StoreError
from weights.manifest import Manifest
from weights.parallel import Lanes
from weights.releases.registry import has_release, stored_files
from weights.releases.repair import quarantine, verify_release
from weights.stores.directory import DirectoryStore

FLIPPED = b"\1" + FILES["model.safetensors"][1:]


@pytest.fixture
def home(tmp_path: Path) -> DirectoryStore:
    return directory_store(tmp_path / "home")


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with Lanes(4) as lanes:
        yield lanes


def wrong(store: DirectoryStore, manifest: Manifest, lanes: Lanes, how: Verify = Verify.FULL) -> dict[str, str]:
    found = verify_release(store, manifest, how, lanes, Pace("home"), lambda _: None)
    return {error.file: error.reason for error in found}


def test_a_right_release_has_nothing_wrong_and_all_of_it_was_seen(home: DirectoryStore, lanes: Lanes) -> None:
    manifest, moved = shelve(home, "tiny"), Counter[str]()

    def count(size: int) -> None:
        moved["bytes"] += size

    for how in Verify:
        moved.clear()
        assert verify_release(home, manifest, how, lanes, Pace("home"), count) == ()
        assert moved["bytes"] == manifest.size


def test_each_wrong_file_is_named_with_what_is_wrong(home: DirectoryStore, lanes: Lanes, tmp_path: Path) -> None:
    manifest = shelve(home, "tiny", {**FILES, "long": b"long", "missing": b"missing"})
    path_of(tmp_path / "home", manifest, "model.safetensors").write_bytes(FLIPPED)
    path_of(tmp_path / "home", manifest, "long").write_bytes(b"longer")
    path_of(tmp_path / "home", manifest, "missing").unlink()
    path_of(tmp_path / "home", manifest, "sub/stranger").write_bytes(b"")
    found = wrong(home, manifest, lanes)
    assert found.keys() == {"model.safetensors", "long", "missing", "sub/stranger"}
    assert "part 0" in found["model.safetensors"]
    assert "6 bytes instead of 4" in found["long"]
    assert "no bytes" in found["missing"]
    assert "no file of the release" in found["sub/stranger"]


def test_without_reading_only_sizes_tell(home: DirectoryStore, lanes: Lanes, tmp_path: Path) -> None:
    manifest = shelve(home, "tiny")
    path_of(tmp_path / "home", manifest, "model.safetensors").write_bytes(FLIPPED)
    assert wrong(home, manifest, lanes, Verify.OFF) == {}
    assert wrong(home, manifest, lanes, Verify.SAMPLED).keys() == {"model.safetensors"}


def test_what_is_corrupt_is_put_aside_and_only_it_is_lacking_then(
    home: DirectoryStore, lanes: Lanes, tmp_path: Path
) -> None:
    manifest = shelve(home, "tiny", {**FILES, "missing": b"missing"})
    path_of(tmp_path / "home", manifest, "model.safetensors").write_bytes(FLIPPED)
    path_of(tmp_path / "home", manifest, "missing").unlink()
    path_of(tmp_path / "home", manifest, "stranger").write_bytes(b"who?")
    corrupt = verify_release(home, manifest, Verify.FULL, lanes, Pace("home"), lambda _: None)
    quarantine(home, manifest, corrupt, NOW.timestamp())
    aside = tmp_path / "home" / "quarantine" / "tiny" / manifest.release / "20261121T103000Z"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == {
        "model.safetensors": FLIPPED,
        "stranger": b"who?",
    }
    stored = {item.key: item.size for item in stored_files(home, "tiny", manifest.release)}
    assert stored.keys() == {"config.json", "sub/empty"}
    todo = needs(manifest, stored, {})
    assert {file.path for file in todo.copy} == {"model.safetensors", "missing"}
    assert todo.publish


def test_the_release_is_gone_before_anything_is_put_aside(home: DirectoryStore, lanes: Lanes, tmp_path: Path) -> None:
    manifest = shelve(home, "tiny")
    path_of(tmp_path / "home", manifest, "model.safetensors").write_bytes(FLIPPED)
    corrupt = verify_release(home, manifest, Verify.FULL, lanes, Pace("home"), lambda _: None)
    (tmp_path / "home" / "quarantine").write_bytes(b"in the way")
    with pytest.raises(StoreError, match="quarantine"):
        quarantine(home, manifest, corrupt, NOW.timestamp())
    assert not has_release(home, "tiny", manifest.release)
