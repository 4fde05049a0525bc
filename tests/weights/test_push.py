"""What is pushed arrives once, and what home has, or had half, is not sent again."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.fakes.hub import REPO, Hub, running
from tests.weights.pushing import KINDS, NOW, Place, held, place_of, push_to, staged
from tests.weights.releases import write_source
from weights.errors import SourceError
from weights.manifest import PART
from weights.releases.registry import releases
from weights.sources.bucket import BucketSource
from weights.sources.source import Source, open_source
from weights.sources.staging import INCOMING
from weights.store import Store, Upload

RANDOM = random.Random(4)
LARGE = RANDOM.randbytes(PART + 7)
FILES = {
    "config.json": b"{}",
    "config.json.json": b'{"a name": "like that of a note"}',
    "model-1.safetensors": LARGE,
    "model-2.safetensors": RANDOM.randbytes(PART * 2),
    "model-3.safetensors": RANDOM.randbytes(1000),
    "sub dir/empty": b"",
}
SIZE = sum(map(len, FILES.values()))
WEIGHTS = frozenset(path for path in FILES if path.startswith("model"))


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_of(request.param, tmp_path_factory.mktemp("store")) as place:
        yield place


@pytest.fixture
def home(place: Place) -> Store:
    return place.fresh().open()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub(dict(FILES), large=WEIGHTS)) as hub:
        yield hub


def directory(path: Path) -> Source:
    return open_source(str(path), Path())


def opened(hub: Hub) -> Source:
    return open_source(f"hf://{REPO}@main", Path(), hub.environ)


@dataclass
class Meddling:
    """Progress that does something once, between digesting and sending."""

    meddle: Any
    done: list[bool] = field(default_factory=list)

    def begin(self, site: str, size: int) -> None:
        if not self.done:
            self.done.append(True)
            self.meddle()

    def advance(self, site: str, size: int) -> None:
        pass


@dataclass
class Watched:
    """A store that remembers the keys of what is sent to it."""

    store: Store
    uploaded: list[str] = field(default_factory=list)

    def upload(self, key: str, size: int, token: str | None = None) -> Upload:
        self.uploaded.append(key.rpartition("/")[2])
        return self.store.upload(key, size, token)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def watched(store: Store) -> tuple[Store, list[str]]:
    one = Watched(store)
    return cast(Store, one), one.uploaded


def test_a_directory_becomes_a_release(home: Store, tmp_path: Path) -> None:
    pushed = push_to(home, directory(write_source(tmp_path / "model", FILES)), tmp_path)
    assert held(home, pushed.manifest.release) == FILES
    assert pushed.delivery.size == SIZE
    assert (pushed.manifest.parent, pushed.manifest.revision) == (None, None)
    assert releases(home, "tiny") == (pushed.manifest.release,)


def test_the_same_bytes_again_move_nothing(home: Store, tmp_path: Path) -> None:
    first = push_to(home, directory(write_source(tmp_path / "model", FILES)), tmp_path)
    copied = directory(write_source(tmp_path / "copy", FILES))
    again = push_to(home, copied, tmp_path, NOW + timedelta(days=1))
    assert again.manifest == first.manifest
    assert (again.delivery.sent, again.delivery.cloned, again.delivery.size) == ((), (), 0)


def test_a_fine_tune_sends_the_file_that_changed(home: Store, tmp_path: Path) -> None:
    source = write_source(tmp_path / "model", FILES)
    first = push_to(home, directory(source), tmp_path)
    write_source(source, {"model-1.safetensors": LARGE[::-1]})
    (source / "config.json").rename(source / "renamed.json")
    second = push_to(home, directory(source), tmp_path, NOW + timedelta(days=1))
    assert [file.path for file in second.delivery.sent] == ["model-1.safetensors"]
    assert second.delivery.size == len(LARGE)
    assert second.manifest.parent == first.manifest.release
    assert held(home, second.manifest.release)["renamed.json"] == FILES["config.json"]
    assert held(home, first.manifest.release) == FILES


def test_the_parent_is_the_latest(home: Store, tmp_path: Path) -> None:
    made = []
    for day in range(4):
        source = directory(write_source(tmp_path / f"{day}", {"config.json": b"%d" % day}))
        made.append(push_to(home, source, tmp_path, NOW + timedelta(days=day)).manifest)
    assert [manifest.parent for manifest in made] == [None, *(manifest.release for manifest in made[:-1])]


@pytest.mark.parametrize("change", [LARGE[:-1] + b"?", LARGE[:-1], b"", None])
def test_a_file_that_changes_while_it_is_pushed_is_named(home: Store, tmp_path: Path, change: bytes | None) -> None:
    source = write_source(tmp_path / "model", FILES)
    path = source / "model-1.safetensors"
    meddling = Meddling(lambda: path.unlink() if change is None else path.write_bytes(change))
    with pytest.raises(SourceError, match=r"model-1\.safetensors"):
        push_to(home, directory(source), tmp_path, progress=meddling)
    assert releases(home, "tiny") == ()


def test_a_repository_goes_through_memory_and_is_read_once(home: Store, hub: Hub, tmp_path: Path) -> None:
    pushed = push_to(home, opened(hub), tmp_path)
    assert held(home, pushed.manifest.release) == FILES
    assert hub.sent() == SIZE
    assert (pushed.manifest.source, pushed.manifest.revision) == (f"hf://{REPO}@main", hub.commit)
    assert pushed.manifest.release == _release_of(FILES, tmp_path, home)
    assert list(home.objects(INCOMING)) == []
    assert list(home.unfinished("")) == []


def _release_of(files: dict[str, bytes], scratch: Path, home: Store) -> str:
    return push_to(home, directory(write_source(scratch / "same", files)), scratch).manifest.release


def test_a_revision_that_is_there_is_not_read(home: Store, hub: Hub, tmp_path: Path) -> None:
    first = push_to(home, opened(hub), tmp_path)
    hub.served.clear()
    again = push_to(home, opened(hub), tmp_path, NOW + timedelta(days=1))
    assert again.manifest == first.manifest
    assert hub.served == []
    assert again.delivery.size == 0


def test_what_was_lost_of_a_revision_is_read_again(home: Store, hub: Hub, tmp_path: Path) -> None:
    first = push_to(home, opened(hub), tmp_path).manifest
    hub.served.clear()
    home.delete(f"models/tiny/{first.release}/model-1.safetensors")
    assert [file.path for file in push_to(home, opened(hub), tmp_path).delivery.sent] == ["model-1.safetensors"]
    assert hub.sent() == len(LARGE)
    assert held(home, first.release) == FILES


def test_a_new_commit_sends_the_file_that_changed(home: Store, hub: Hub, tmp_path: Path) -> None:
    first = push_to(home, opened(hub), tmp_path).manifest
    hub.commit = hub.commit[::-1]
    hub.files = {**FILES, "model-2.safetensors": LARGE[::-1], "model-3.safetensors": RANDOM.randbytes(1000)}
    store, uploaded = watched(home)
    second = push_to(store, opened(hub), tmp_path, NOW + timedelta(days=1)).manifest
    assert sorted(uploaded) == ["model-2.safetensors", "model-3.safetensors"]
    assert held(home, second.release) == hub.files
    assert (second.parent, second.revision) == (first.release, hub.commit)


def test_what_was_staged_before_a_failure_is_not_read_again(home: Store, hub: Hub, tmp_path: Path) -> None:
    hub.unavailable["model-2.safetensors"] = [403]
    with pytest.raises(SourceError, match=r"read model-2\.safetensors .*403"):
        push_to(home, opened(hub), tmp_path)
    assert releases(home, "tiny") == ()
    there = staged(home)
    assert "config.json" in there
    hub.served.clear()
    pushed = push_to(home, opened(hub), tmp_path)
    assert not {path for path, _, size in hub.served if size} & set(there)
    assert held(home, pushed.manifest.release) == FILES
    assert list(home.objects(INCOMING)) == []


def test_a_wrong_sha256_is_named_and_removed(home: Store, hub: Hub, tmp_path: Path) -> None:
    hub.stated["model-1.safetensors"] = "0" * 64
    with pytest.raises(SourceError, match=rf"model-1\.safetensors of hf://{REPO}@main .*stated is {'0' * 64}"):
        push_to(home, opened(hub), tmp_path)
    assert releases(home, "tiny") == ()
    assert not [item for item in home.objects(INCOMING) if "model-1" in item.key]
    assert not [item for item in home.unfinished("") if "model-1" in item.key]
    hub.stated.clear()
    assert held(home, push_to(home, opened(hub), tmp_path).manifest.release) == FILES


def test_damage_to_what_is_staged_is_found(home: Store, hub: Hub, tmp_path: Path) -> None:
    hub.unavailable["model-2.safetensors"] = [403]
    with pytest.raises(SourceError):
        push_to(home, opened(hub), tmp_path)
    damaged = [item for item in home.objects(INCOMING) if "/bytes/config.json" in item.key]
    assert damaged
    for item in damaged:
        home.write(item.key, bytes(item.size))
    assert held(home, push_to(home, opened(hub), tmp_path).manifest.release) == FILES


def test_a_bucket_is_pushed_from(place: Place, home: Store, tmp_path: Path) -> None:
    bucket = place.fresh()
    for path, content in FILES.items():
        bucket.open().write(path, content)
    source = BucketSource(bucket.spec.url, bucket.open())
    pushed = push_to(home, source, tmp_path)
    assert held(home, pushed.manifest.release) == FILES
    assert (pushed.manifest.source, pushed.manifest.revision) == (bucket.spec.url, source.revision)
