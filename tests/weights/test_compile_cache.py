"""What one node's engine compiled reaches another node, and nothing else does."""

import random
import tarfile
from pathlib import Path

import pytest

from tests.weights.making import directory
from weights.manifest import PART
from weights.node.compile_cache import MAX_BYTES, CompileCache, engine_name
from weights.node.slot import Slot
from weights.store import Store

TOKEN = "site-token"
RELEASE = "0123456789ab"
FILES = {"torch_compile_cache/ab12/rank_0_0/model": b"graph" * 1000, "modelinfos/x.json": b"{}", "empty": b""}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return directory(tmp_path / "store")


def cache_on(node: Path, engine: str = "0.29.0-h100") -> CompileCache:
    return CompileCache(Slot(node, "chat", RELEASE), engine)


def compiled(cache: CompileCache, files: dict[str, bytes] = FILES) -> CompileCache:
    for name, text in files.items():
        path = cache.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return cache


def held(cache: CompileCache) -> dict[str, bytes]:
    top = cache.directory
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def read(store: Store, key: str) -> bytes:
    return b"".join(store.read(key, 0, MAX_BYTES))


def test_a_node_finds_what_another_one_compiled(tmp_path: Path, store: Store) -> None:
    one, two = compiled(cache_on(tmp_path / "one")), cache_on(tmp_path / "two")
    assert one.save(store, TOKEN)
    assert store.find(f"models/chat/{RELEASE}.caches/0.29.0-h100.tar")
    assert two.restore(store, TOKEN)
    assert held(two) == FILES


def test_a_large_cache_is_stored_in_parts(tmp_path: Path, store: Store) -> None:
    files = {"kernels": random.Random(1).randbytes(2 * PART + 1)}
    one, two = compiled(cache_on(tmp_path / "one"), files), cache_on(tmp_path / "two")
    assert one.save(store, TOKEN)
    assert two.restore(store, TOKEN)
    assert held(two) == files


def test_where_nothing_was_kept_the_engine_compiles(tmp_path: Path, store: Store) -> None:
    cache = cache_on(tmp_path / "one")
    assert not cache.restore(store, TOKEN)
    assert not cache.save(store, TOKEN)
    assert not list(store.objects(""))


def test_what_is_in_the_store_already_is_not_stored_again_and_what_changed_is(tmp_path: Path, store: Store) -> None:
    one, two = compiled(cache_on(tmp_path / "one")), cache_on(tmp_path / "two")
    assert one.save(store, TOKEN)
    assert not one.save(store, TOKEN)
    two.restore(store, TOKEN)
    assert not two.save(store, TOKEN)
    compiled(two, {"more": b"1"})
    assert two.save(store, TOKEN)


def test_a_nodes_own_cache_is_left_alone(tmp_path: Path, store: Store) -> None:
    one, two = compiled(cache_on(tmp_path / "one")), compiled(cache_on(tmp_path / "two"), {"own": b"1"})
    two.save(store, TOKEN)
    one.save(store, TOKEN)
    assert two.restore(store, "whatever")
    assert held(two) == {"own": b"1"}


def test_what_a_start_left_that_died_is_completed_from_the_store(tmp_path: Path, store: Store) -> None:
    broken = {"modelinfos/x.json": b"{", "of-others-that-run": b"1"}
    one, two = compiled(cache_on(tmp_path / "one")), compiled(cache_on(tmp_path / "two"), broken)
    one.save(store, TOKEN)
    assert two.restore(store, TOKEN)
    assert held(two) == {**broken, **FILES}
    assert not two.save(store, TOKEN)


@pytest.mark.parametrize("at", [0, 31, 32, 600, -1])
def test_a_pack_with_one_wrong_bit_is_ignored(tmp_path: Path, store: Store, at: int) -> None:
    one, two = compiled(cache_on(tmp_path / "one")), cache_on(tmp_path / "two")
    one.save(store, TOKEN)
    pack = bytearray(read(store, one.key))
    pack[at] ^= 1
    store.write(one.key, bytes(pack))
    assert not two.restore(store, TOKEN)
    assert held(two) == {}


def test_a_pack_that_somebody_without_the_sites_token_signed_is_ignored(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    compiled(cache_on(tmp_path / "one")).save(store, "another-token")
    two = cache_on(tmp_path / "two")
    assert not two.restore(store, TOKEN)
    assert "is not signed with this site's token" in caplog.text
    assert TOKEN not in caplog.text
    assert compiled(two).save(store, TOKEN)
    assert cache_on(tmp_path / "three").restore(store, TOKEN)


def test_a_pack_of_another_engine_is_ignored_though_it_is_signed(tmp_path: Path, store: Store) -> None:
    one, two = compiled(cache_on(tmp_path / "one")), cache_on(tmp_path / "two", "0.30.0-h100")
    one.save(store, TOKEN)
    store.write(two.key, read(store, one.key))
    assert not two.restore(store, TOKEN)


@pytest.mark.parametrize("content", [b"", b"1" * 32, b"1" * 33])
def test_what_is_no_pack_is_ignored(tmp_path: Path, store: Store, content: bytes) -> None:
    cache = cache_on(tmp_path / "one")
    store.write(cache.key, content)
    assert not cache.restore(store, TOKEN)


def test_a_cache_that_is_too_large_stays_on_its_node(tmp_path: Path, store: Store) -> None:
    cache = compiled(cache_on(tmp_path / "one"), {"small": b"1"})
    with (cache.directory / "sparse").open("wb") as file:
        file.truncate(MAX_BYTES)
    assert not cache.save(store, TOKEN)
    assert store.find(cache.key) is None


def test_links_are_not_packed(tmp_path: Path, store: Store) -> None:
    cache = compiled(cache_on(tmp_path / "one"))
    (cache.directory / "link").symlink_to("/etc/passwd")
    cache.save(store, TOKEN)
    (tmp_path / "pack").write_bytes(read(store, cache.key)[32:])
    with tarfile.open(tmp_path / "pack") as pack:
        assert {member.name for member in pack} == set(FILES)


def test_an_engine_is_named_by_version_and_accelerator() -> None:
    assert engine_name("0.29.0+cu129", "H100") == "0.29.0-cu129-h100"
    assert engine_name("0.29.0", "../x") == "0.29.0-..-x"
