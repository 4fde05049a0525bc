"""A release is there when its manifest is, and nothing else beside a model's releases is taken for one."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.fakes.store import directory_store
from tests.weights.shelves import FILES, NOW, described, shelve
from weights.errors import Corrupt, ReleaseMissing
from weights.manifest import MAX_BYTES
from weights.releases.registry import (
    cached_release,
    has_release,
    history,
    load_manifest,
    models,
    publish,
    read_object,
    release_of,
    release_prefix,
    releases,
    require_release,
    stored_files,
    unpublish,
)
from weights.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Store:
    return directory_store(tmp_path / "home")


def test_a_release_exists_from_its_manifest_on_and_until_that_is_gone(home: Store) -> None:
    manifest = described("tiny")
    for path, content in FILES.items():
        home.write(release_prefix("tiny", manifest.release) + path, content)
    assert not has_release(home, "tiny", manifest.release)
    assert releases(home, "tiny") == ()
    publish(home, manifest)
    assert releases(home, "tiny") == (manifest.release,)
    assert load_manifest(home, "tiny", manifest.release, "") == manifest
    unpublish(home, "tiny", manifest.release)
    assert not has_release(home, "tiny", manifest.release)
    assert {item.key for item in stored_files(home, "tiny", manifest.release)} == set(FILES)
    unpublish(home, "tiny", manifest.release)


def test_what_lies_beside_releases_is_none(home: Store) -> None:
    release = shelve(home, "tiny").release
    for beside in (
        "models/tiny/aliases/manifest.json",
        "models/tiny/0123456789ab.caches/manifest.json",
        "models/tiny/0123456789ab.lease",
        "models/tiny/0123456789ab/sub/manifest.json",
        "models/manifest.json",
        "quarantine/tiny/0123456789ab/manifest.json",
        "incoming/0123456789ab/manifest.json",
    ):
        home.write(beside, b"{}")
    assert releases(home, "tiny") == (release,)
    assert models(home) == ("tiny",)


def test_models_whose_names_begin_alike_are_apart(home: Store) -> None:
    one, other = shelve(home, "tiny"), shelve(home, "tiny-chat", {"config.json": b"[]"})
    assert models(home) == ("tiny", "tiny-chat")
    assert releases(home, "tiny") == (one.release,)
    assert releases(home, "tiny-chat") == (other.release,)


def test_history_begins_with_the_latest(home: Store) -> None:
    made = [shelve(home, "tiny", {"n": b"%d" % n}, NOW + timedelta(hours=hour)) for n, hour in enumerate((3, 1, 2))]
    assert history(home, "tiny") == (made[0], made[2], made[1])


def test_a_manifest_that_is_none_hides_no_other(home: Store, caplog: pytest.LogCaptureFixture) -> None:
    right = shelve(home, "tiny")
    home.write("models/tiny/0123456789ab/manifest.json", b"half a mani")
    assert history(home, "tiny") == (right,)
    assert "0123456789ab/manifest.json" in caplog.text


def test_a_missing_release_is_told_with_what_would_bring_it(home: Store) -> None:
    with pytest.raises(ReleaseMissing, match="run: rayfleet weights replicate tiny --site far"):
        require_release(home, "tiny", "0" * 12, "far")
    with pytest.raises(ReleaseMissing, match="run: this"):
        load_manifest(home, "tiny", "0" * 12, "run: this")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 1000])
def test_what_is_no_manifest_is_corrupt(home: Store, content: bytes) -> None:
    home.write("models/tiny/0123456789ab/manifest.json", content)
    with pytest.raises(Corrupt, match=r"0123456789ab/manifest\.json at file:"):
        load_manifest(home, "tiny", "0123456789ab", "")


def test_the_manifest_of_another_release_is_corrupt(home: Store) -> None:
    manifest = described("tiny")
    home.write("models/tiny/0123456789ab/manifest.json", manifest.to_json())
    home.write(f"models/other/{manifest.release}/manifest.json", manifest.to_json())
    for model, release in (("tiny", "0123456789ab"), ("other", manifest.release)):
        with pytest.raises(Corrupt, match=f"it is the manifest of tiny {manifest.release}"):
            load_manifest(home, model, release, "")


def test_a_manifest_beyond_all_bounds_is_not_read(home: Store, tmp_path: Path) -> None:
    home.write("models/tiny/0123456789ab/manifest.json", b"")
    with (tmp_path / "home/models/tiny/0123456789ab/manifest.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(Corrupt, match="more than"):
        load_manifest(home, "tiny", "0123456789ab", "")


def test_a_small_object_comes_with_its_version(home: Store) -> None:
    assert read_object(home, "note", 10) is None
    home.write("note", b"one")
    home.write("empty", b"")
    found, empty = read_object(home, "note", 10), read_object(home, "empty", 10)
    assert found is not None
    assert found[1] == b"one"
    assert found[0] == home.find("note")
    assert empty is not None
    assert empty[1] == b""
    with pytest.raises(Corrupt, match="it has 3 bytes, more than 2"):
        read_object(home, "note", 2)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("models/tiny/0123456789ab/a/b", (("tiny", "0123456789ab"), "a/b")),
        ("models/tiny/0123456789ab/", (("tiny", "0123456789ab"), "")),
        ("models/tiny/0123456789ab", None),
        ("models/tiny/0123456789ab.lease", None),
        ("models/tiny/0123456789abc/a", None),
        ("models/tiny/aliases/prod.json", None),
        ("other/tiny/0123456789ab/a", None),
    ],
)
def test_keys_tell_their_release(key: str, place: object) -> None:
    assert release_of(key) == place


def test_caches_tell_their_release() -> None:
    assert cached_release("models/tiny/0123456789ab.caches/vllm-L4.tar") == ("tiny", "0123456789ab")
    assert cached_release("models/tiny/0123456789ab/vllm-L4.tar") is None
