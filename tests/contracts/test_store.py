"""What every store promises (`weights.store.Store`), asked of each of them."""

import hashlib
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contracts.conftest import Place
from weights.errors import AccessDenied, NotFound
from weights.store import CHUNK, Store, Stored, chunks, open_store

MIB = 2**20


@pytest.mark.parametrize("content", [b"", b"a", b"ends in a carriage return\r", bytes(range(256)) * 512])
def test_what_is_written_is_read(store: Store, prefix: str, content: bytes) -> None:
    store.write(prefix + "object", content)
    assert store.size(prefix + "object") == len(content)
    assert b"".join(chunks(store, prefix + "object", len(content))) == content


def test_a_file_may_be_written(store: Store, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    store.write(prefix + "object", tmp_path / "file")
    assert store.read(prefix + "object", 0, CHUNK) == b"weights"


def test_a_big_file_arrives_whole(store: Store, prefix: str, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(20 * MIB + 1)
    (tmp_path / "file").write_bytes(content)
    store.write(prefix + "object", tmp_path / "file")
    assert store.size(prefix + "object") == len(content)
    digest = hashlib.sha256()
    for piece in chunks(store, prefix + "object", len(content)):
        assert len(piece) <= CHUNK
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(content).digest()


def test_a_range_is_read(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"0123456789")
    assert store.read(prefix + "object", 0, 1) == b"0"
    assert store.read(prefix + "object", 3, 4) == b"3456"
    assert store.read(prefix + "object", 8, 100) == b"89"


def test_writing_again_replaces(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"a longer first content")
    store.write(prefix + "object", b"second")
    assert store.size(prefix + "object") == 6
    assert store.read(prefix + "object", 0, CHUNK) == b"second"
    assert list(store.objects(prefix)) == [Stored(prefix + "object", 6)]


def test_what_is_deleted_is_gone(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"x")
    store.delete(prefix + "object")
    store.delete(prefix + "object")
    assert store.size(prefix + "object") is None
    assert list(store.objects(prefix)) == []
    with pytest.raises(NotFound, match="object"):
        store.read(prefix + "object", 0, 1)


def test_what_was_never_there_has_no_size(store: Store, prefix: str) -> None:
    store.write(prefix + "directory/object", b"x")
    assert store.size(prefix + "absent") is None
    assert store.size(prefix + "directory") is None
    assert store.size(prefix + "directory/obj") is None


def test_a_prefix_selects(store: Store, prefix: str) -> None:
    for key in ("a/1", "a/b/2", "a/b/3", "ab/4", "b/5"):
        store.write(prefix + key, key.encode())
    assert keys(store, prefix + "a/") == {"a/1", "a/b/2", "a/b/3"}
    assert keys(store, prefix + "a/b") == {"a/b/2", "a/b/3"}
    assert keys(store, prefix + "a") == {"a/1", "a/b/2", "a/b/3", "ab/4"}
    assert keys(store, prefix + "c/") == set()


def test_a_listing_has_more_than_one_page(store: Store, prefix: str) -> None:
    names = {f"{number:03}" for number in range(210)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: store.write(prefix + name, b"x"), names))
    assert keys(store, prefix) == names


@pytest.mark.parametrize("name", ["with space", "ünïcödé", "a+b=c&d?e#f%20g", "[1]{2}(3)", "o"])
def test_names_are_kept(store: Store, prefix: str, name: str) -> None:
    store.write(prefix + name, b"x")
    assert store.read(prefix + name, 0, 1) == b"x"
    assert store.size(prefix + name) == 1
    assert keys(store, prefix) == {name}
    store.delete(prefix + name)
    assert store.size(prefix + name) is None


def test_threads_share_a_store(store: Store, prefix: str) -> None:
    contents = {f"{number}": random.Random(number).randbytes(MIB + number) for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.write(prefix + name, contents[name]), contents))
        read = pool.map(lambda name: store.read(prefix + name, 0, CHUNK), contents)
    assert list(read) == list(contents.values())


def test_a_missing_bucket_is_an_error(place: Place, tmp_path: Path) -> None:
    # A store need not tell whether what it refuses to show exists.
    absent = place.in_bucket("no-such-bucket")
    for operation in (
        lambda: absent.size("key"),
        lambda: list(absent.objects("")),
        lambda: absent.read("key", 0, 1),
        lambda: absent.write("key", b"x"),
        lambda: absent.delete("key"),
    ):
        with pytest.raises((NotFound, AccessDenied), match="no-such-bucket"):
            operation()


def test_a_wrong_key_is_denied(place: Place) -> None:
    if place.impostor is None:
        pytest.skip("a directory has no keys")
    store = open_store(*place.impostor)
    for operation in (
        lambda: store.size("key"),
        lambda: list(store.objects("")),
        lambda: store.read("key", 0, 1),
        lambda: store.write("key", b"x"),
    ):
        with pytest.raises(AccessDenied) as caught:
            operation()
        assert place.spec.url in str(caught.value)
        assert place.secret not in str(caught.value)
        # Ray carries exceptions between processes.
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def keys(store: Store, prefix: str) -> set[str]:
    """Keys under a prefix, without the test's own."""
    own = prefix.partition("/")[0] + "/"
    return {item.key.removeprefix(own) for item in store.objects(prefix)}
