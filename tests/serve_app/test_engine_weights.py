"""What an engine is told of its weights, and that its node has them and keeps them."""

import shutil
from pathlib import Path

import pytest

from clusters.spec import Loading
from clusters.storage import StoreSpec, WeightsSpec
from serve_app.engine_weights import EngineWeights, streamed_path, streaming_arguments, streaming_environment
from tests.weights.making import directory, published
from tests.weights.releases import FILES, content
from weights.node.compile_cache import CompileCache
from weights.node.eviction import Claim, observe
from weights.node.slot import Slot

RELEASE = "0123456789ab"
CEPH = StoreSpec(url="s3://bucket/some/prefix", endpoint="http://ceph:7480", region="us-east-1", profile="site-a")
AWS = StoreSpec(url="s3://bucket")
GCS = StoreSpec(url="gs://bucket/prefix/", credentials_file="/etc/account.json")


def weights_of(tmp_path: Path, loading: Loading, token_variable: str = "SITE_TOKEN") -> EngineWeights:
    store = directory(tmp_path / "store")
    return EngineWeights(
        model="tiny",
        release=published(store).release,
        site="here",
        engine="0.29.0-cpu",
        loading=loading,
        store=StoreSpec(url=store.url),
        weights=WeightsSpec(home="here", cache_dir=str(tmp_path / "cache")),
        keep=frozenset(),
        token_variable=token_variable,
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
