"""What an engine is told of its weights, and that its node has them and keeps them."""

import shutil
from pathlib import Path

import pytest

from clusters.spec import Loading
from clusters.storage import CacheSpec, StoreSpec, WeightsSpec
from serve_app.engine_weights import EngineWeights, streamed_path, streaming_arguments, streaming_environment
from serve_app.replicator import cache_releases
from tests.weights.making import directory, large, published
from tests.weights.releases import FILES, content
from weights.errors import DiskFull
from weights.node.cache import fetch
from weights.node.compile_cache import CompileCache
from weights.node.eviction import Claim, observe
from weights.node.pins import PINS, pin, pinned
from weights.node.slot import Slot

MIB = 2**20
RELEASE = "0123456789ab"
CEPH = StoreSpec(url="s3://bucket/some/prefix", endpoint="http://ceph:7480", region="us-east-1", profile="site-a")
AWS = StoreSpec(url="s3://bucket")
GCS = StoreSpec(url="gs://bucket/prefix/", credentials_file="/etc/account.json")


def weights_of(tmp_path: Path, loading: Loading, cache_gb: float | None = None) -> EngineWeights:
    store = directory(tmp_path / "store")
    return EngineWeights(
        model="tiny",
        release=published(store).release,
        site="here",
        engine="0.29.0-cpu",
        loading=loading,
        store=StoreSpec(url=store.url),
        weights=CacheSpec(cache_dir=str(tmp_path / "cache"), cache_gb=cache_gb),
        token_variable="SITE_TOKEN",
    )


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SITE_TOKEN", "secret")
    return "secret"


def test_a_prepared_node_has_the_release_and_does_not_evict_it(tmp_path: Path) -> None:
    weights = weights_of(tmp_path, Loading.CACHED)
    path = Path(weights.prepare())
    assert content(path) == FILES
    assert [found.claim for found in observe(tmp_path / "cache", frozenset())] == [Claim.USED]


def test_an_engine_makes_no_room_before_the_replicator_has_said_what_stays(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    neighbour = published(directory(tmp_path / "store"), {"model.safetensors": large(1, MIB)}, "neighbour").release
    fetch(directory(tmp_path / "store"), "neighbour", neighbour, cache)
    weights = weights_of(tmp_path, Loading.CACHED, cache_gb=MIB / 1e9)
    for kept in (None, frozenset((f"neighbour/{neighbour}",))):
        if kept is not None:
            pin(cache, kept)
        with pytest.raises(DiskFull, match=f"neighbour/{neighbour} is pinned"):
            weights.prepare()
    pin(cache, frozenset())
    weights.prepare()
    assert not Slot(cache, "neighbour", neighbour).complete.exists()


def test_a_node_that_is_told_to_fetch_learns_what_to_keep(tmp_path: Path) -> None:
    cache, store = tmp_path / "cache", directory(tmp_path / "store")
    here = ("tiny", published(store).release)
    weights = WeightsSpec(home="here", cache_dir=str(cache)).model_dump(mode="json")
    assert cache_releases([here], [here, ("asleep", RELEASE)], {"url": store.url}, weights, "here") == ([here], [])
    assert pinned(cache) == frozenset((f"tiny/{here[1]}", f"asleep/{RELEASE}"))


def test_a_list_that_cannot_be_read_keeps_everything(tmp_path: Path) -> None:
    pin(tmp_path, frozenset(("chat/0123456789ab",)))
    assert pinned(tmp_path) == frozenset(("chat/0123456789ab",))
    (tmp_path / PINS).write_text('["chat/01')
    assert pinned(tmp_path) is None


def test_what_is_streamed_is_not_copied(tmp_path: Path) -> None:
    weights = weights_of(tmp_path, Loading.STREAMED)
    path = Path(weights.prepare())
    assert path == tmp_path / "store" / "models" / "tiny" / weights.release
    assert not (tmp_path / "cache" / "tiny" / weights.release).exists()


def test_what_one_engine_compiled_the_next_node_finds(tmp_path: Path, token: str) -> None:
    weights = weights_of(tmp_path, Loading.CACHED)
    other = Slot(tmp_path / "other-node", "tiny", weights.release)
    compiled = Path(weights.environment()["VLLM_CACHE_ROOT"])
    compiled.mkdir(parents=True)
    (compiled / "graph").write_bytes(b"1")
    weights.save_compiled()
    assert CompileCache(other, weights.engine).restore(directory(tmp_path / "store"), token)
    assert (other.caches / weights.engine / "graph").read_bytes() == b"1"


def test_a_store_that_is_gone_keeps_no_engine_from_starting_where_the_release_is(tmp_path: Path) -> None:
    weights = weights_of(tmp_path, Loading.CACHED)
    path = weights.prepare()
    shutil.rmtree(tmp_path / "store")
    assert weights.prepare() == path
    weights.save_compiled()


def test_the_path_that_is_streamed_is_the_releases_own() -> None:
    assert streamed_path(CEPH, "chat", RELEASE) == f"s3://bucket/some/prefix/models/chat/{RELEASE}"
    assert streamed_path(GCS, "chat", RELEASE) == f"gs://bucket/prefix/models/chat/{RELEASE}"
    assert streamed_path(StoreSpec(url="file:///a%20b"), "chat", RELEASE) == f"/a b/models/chat/{RELEASE}"


def test_the_streamer_is_told_of_the_store_what_fleet_yaml_says() -> None:
    environment = streaming_environment(CEPH)
    assert environment["AWS_ENDPOINT_URL"] == environment["RUNAI_STREAMER_S3_ENDPOINT"] == "http://ceph:7480"
    assert environment["AWS_PROFILE"] == "site-a"
    assert environment["RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING"] == "0"
    assert streaming_environment(AWS) == {}
    assert set(streaming_environment(GCS).values()) == {"/etc/account.json"}


def test_a_directory_needs_no_streamer() -> None:
    assert streaming_arguments(StoreSpec(url="file:///data")) == {}
    assert streaming_arguments(AWS) == streaming_arguments(GCS) == {"load_format": "runai_streamer"}
