"""What every store promises (`weights.store.Store`), asked of each of them. Uploads are in test_uploads.py."""

import pickle
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import botocore.auth
import google.auth._helpers
import pytest

from clusters.launch.processes import free_port
from tests.contracts.conftest import READABLE, Place
from tests.contracts.cutting_proxy import cutting_proxy
from weights.errors import AccessDenied, NotFound, StoreError
from weights.store import PIECE, Store, open_store

MIB = 2**20
LONG = random.Random(1).randbytes(8 * MIB + 3)
NAMES = ["with space", "ünïcödé", "a+b=c&d?e#f%20g", "[1]{2}(3)", "o", "deep/er/key"]


@pytest.mark.parametrize("content", [b"", b"a", b"ends in a carriage return\r", bytes(range(256)) * 512])
def test_what_is_written_is_read(store: Store, prefix: str, content: bytes) -> None:
    store.write(prefix + "object", content)
    assert size(store, prefix + "object") == len(content)
    if content:
        assert read(store, prefix + "object") == content


def test_a_range_is_read(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"0123456789")
    assert read(store, prefix + "object", 0, 1) == b"0"
    assert read(store, prefix + "object", 3, 4) == b"3456"
    assert read(store, prefix + "object", 9, 1) == b"9"
    assert read(store, prefix + "object", 8, 100) == b"89"


def test_reading_goes_in_pieces(store: Store, prefix: str) -> None:
    store.write(prefix + "object", LONG)
    pieces = list(store.read(prefix + "object", 1, len(LONG)))
    assert max(map(len, pieces)) <= PIECE
    assert b"".join(pieces) == LONG[1:]


def test_half_a_reading_may_be_dropped(store: Store, prefix: str) -> None:
    store.write(prefix + "object", LONG)
    for _ in range(100):
        # More than there are connections: each must come back to where it was lent.
        assert LONG.startswith(next(iter(store.read(prefix + "object", 0, len(LONG)))))


def test_an_answer_that_breaks_off_is_continued(place: Place, store: Store, prefix: str) -> None:
    if place.spec.endpoint is None:
        pytest.skip("a directory has no connections")
    store.write(prefix + "object", LONG)
    with cutting_proxy(place.spec.endpoint, after_bytes=3 * MIB) as endpoint:
        cut = open_store(place.spec.model_copy(update={"endpoint": endpoint}), place.environ)
        assert read(cut, prefix + "object") == LONG
        assert read(cut, prefix + "object", 7, 5 * MIB) == LONG[7 : 7 + 5 * MIB]


def test_an_answer_that_always_breaks_off_ends_in_an_error(place: Place, store: Store, prefix: str) -> None:
    if place.spec.endpoint is None:
        pytest.skip("a directory has no connections")
    store.write(prefix + "object", LONG)
    with cutting_proxy(place.spec.endpoint, after_bytes=0) as endpoint:
        cut = open_store(place.spec.model_copy(update={"endpoint": endpoint}), place.environ)
        with pytest.raises(StoreError):
            read(cut, prefix + "object")


def test_writing_again_replaces(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"a longer first content")
    store.write(prefix + "object", b"second")
    assert read(store, prefix + "object") == b"second"
    assert [(item.key, item.size) for item in store.objects(prefix)] == [(prefix + "object", 6)]


def test_what_is_found_is_what_is_listed(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"content")
    found, (listed,) = store.find(prefix + "object"), store.objects(prefix)
    assert found
    assert (found.key, found.size) == (prefix + "object", 7)
    assert replace(found, modified=listed.modified) == listed
    assert abs(found.modified - time.time()) < 120
    assert abs(listed.modified - found.modified) <= 1


def test_another_content_is_another_version(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"one")
    one = store.find(prefix + "object")
    store.write(prefix + "object", b"two")
    two = store.find(prefix + "object")
    assert one
    assert two
    assert one.version != two.version
    assert two.version


def test_what_is_deleted_is_gone(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"x")
    store.delete(prefix + "object")
    store.delete(prefix + "object")
    assert store.find(prefix + "object") is None
    assert list(store.objects(prefix)) == []
    with pytest.raises(NotFound, match="object"):
        read(store, prefix + "object")


def test_what_was_never_there_is_not_found(store: Store, prefix: str) -> None:
    store.write(prefix + "directory/object", b"x")
    assert store.find(prefix + "absent") is None
    assert store.find(prefix + "directory") is None
    assert store.find(prefix + "directory/obj") is None
    assert store.find(prefix + "directory/object/below") is None


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


@pytest.mark.parametrize("name", NAMES)
def test_names_are_kept(store: Store, prefix: str, name: str) -> None:
    store.write(prefix + name, b"x")
    assert read(store, prefix + name) == b"x"
    assert size(store, prefix + name) == 1
    assert keys(store, prefix) == {name}
    store.copy(prefix + name, prefix + "copy of " + name, 1)
    assert keys(store, prefix) == {name, "copy of " + name}
    store.delete(prefix + name)
    assert keys(store, prefix) == {"copy of " + name}


def test_threads_share_a_store(store: Store, prefix: str) -> None:
    contents = {f"{number}": random.Random(number).randbytes(MIB + number) for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.write(prefix + name, contents[name]), contents))
        assert list(pool.map(lambda name: read(store, prefix + name), contents)) == list(contents.values())


@pytest.mark.parametrize("content", [b"few bytes", LONG])
def test_a_copy_is_another_object(store: Store, prefix: str, content: bytes) -> None:
    store.write(prefix + "object", content)
    store.write(prefix + "copy", b"what was there")
    store.copy(prefix + "object", prefix + "copy", len(content))
    store.delete(prefix + "object")
    assert read(store, prefix + "copy") == content
    assert keys(store, prefix) == {"copy"}


def test_what_is_not_there_is_not_copied(store: Store, prefix: str) -> None:
    with pytest.raises(NotFound, match="absent"):
        store.copy(prefix + "absent", prefix + "copy", 1)
    assert store.find(prefix + "copy") is None


def test_a_conditional_write_needs_absence(store: Store, prefix: str) -> None:
    if not store.conditional:
        pytest.skip("this store writes always")
    assert store.write_if(prefix + "object", b"first", None)
    assert not store.write_if(prefix + "object", b"second", None)
    assert read(store, prefix + "object") == b"first"


def test_a_conditional_write_needs_the_version(store: Store, prefix: str) -> None:
    if not store.conditional:
        pytest.skip("this store writes always")
    assert store.write_if(prefix + "object", b"first", None)
    first = version(store, prefix + "object")
    assert store.write_if(prefix + "object", b"second", first)
    assert not store.write_if(prefix + "object", b"third", first)
    assert read(store, prefix + "object") == b"second"
    second = version(store, prefix + "object")
    store.delete(prefix + "object")
    assert not store.write_if(prefix + "object", b"fourth", second)
    assert store.find(prefix + "object") is None


def test_one_of_many_wins_a_conditional_write(store: Store, prefix: str) -> None:
    if not store.conditional:
        pytest.skip("this store writes always")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.write_if(prefix + "object", b"%d" % n, None), range(8)))
    assert won.count(True) == 1
    assert read(store, prefix + "object") == b"%d" % won.index(True)


def test_a_store_without_conditions_writes_always(store: Store, prefix: str) -> None:
    if store.conditional:
        pytest.skip("this store honours conditions")
    assert store.write_if(prefix + "object", b"first", None)
    assert store.write_if(prefix + "object", b"second", None)
    assert store.write_if(prefix + "object", b"third", "made-up")
    assert read(store, prefix + "object") == b"third"


def test_asking_for_conditions_leaves_nothing_behind(place: Place, prefix: str) -> None:
    store = open_store(place.spec, place.environ)
    before = keys(store, "")
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: store.conditional, range(4)))) == 1
    assert keys(store, "") == before


def test_free_bytes_are_counted_or_not(store: Store) -> None:
    free = store.free()
    assert free is None or free > 0


def test_a_missing_bucket_is_an_error(place: Place) -> None:
    # A store need not tell whether what it refuses to show exists.
    absent = place.in_bucket("no-such-bucket")
    for operation in reading(absent, "key") + writing(absent, "key"):
        with pytest.raises((NotFound, AccessDenied), match="no-such-bucket"):
            operation()


def test_a_wrong_key_is_denied(place: Place) -> None:
    if place.impostor is None:
        pytest.skip("a directory has no keys")
    store = open_store(*place.impostor)
    for operation in reading(store, "key") + writing(store, "key"):
        with pytest.raises(AccessDenied) as caught:
            operation()
        assert place.spec.url in str(caught.value)
        assert place.secret not in str(caught.value)
        # Ray carries exceptions between processes.
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_who_may_only_read_is_told_so(reader: Store) -> None:
    for operation in reading(reader, READABLE):
        operation()
    for operation in writing(reader, READABLE):
        with pytest.raises(AccessDenied, match="needs") as caught:
            operation()
        assert reader.url in str(caught.value)
    assert read(reader, READABLE) == READABLE.encode()


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_is_named(place: Place, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    shift = timedelta(hours=hours)
    for module, name in ((botocore.auth, "get_current_datetime"), (google.auth._helpers, "utcnow")):
        monkeypatch.setattr(module, name, shifted(getattr(module, name), shift))
    monkeypatch.setattr(time, "time", shifted(time.time, shift.total_seconds()))
    store = open_store(place.spec, place.environ)
    try:
        store.find("key")
    except AccessDenied as error:
        assert "clock" in str(error)  # noqa: PT017 - a store need not look at clocks
    else:
        pytest.skip("this server looks at no clock")


def test_a_store_that_is_away_is_an_error(place: Place) -> None:
    if place.spec.endpoint is None:
        pytest.skip("a directory has no server")
    spec = place.spec.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(StoreError, match=place.spec.url) as caught:
        open_store(spec, place.environ).find("key")
    assert not isinstance(caught.value, (AccessDenied, NotFound))


def reading(store: Store, key: str) -> list[Callable[[], object]]:
    return [lambda: store.find(key), lambda: list(store.objects("")), lambda: read(store, key)]


def writing(store: Store, key: str) -> list[Callable[[], object]]:
    return [
        lambda: store.write(key, b"x"),
        lambda: store.write_if(key, b"x", None),
        lambda: store.conditional,
        lambda: store.copy(key, key + "-copy", 8),
        lambda: put(store, key, b"x"),
        lambda: put(store, key, bytes(16 * MIB + 1)),
        lambda: store.delete(key),
    ]


def put(store: Store, key: str, content: bytes) -> None:
    upload = store.upload(key, len(content))
    for number, start in enumerate(range(0, len(content), 16 * MIB)):
        upload.send(number, content[start : start + 16 * MIB])
    upload.complete()


def shifted(clock: Callable[..., Any], by: timedelta | float) -> Callable[..., Any]:
    return lambda *arguments: clock(*arguments) + by


def read(store: Store, key: str, offset: int = 0, length: int = 64 * MIB) -> bytes:
    return b"".join(store.read(key, offset, length))


def size(store: Store, key: str) -> int | None:
    found = store.find(key)
    return found.size if found else None


def version(store: Store, key: str) -> str:
    found = store.find(key)
    assert found
    return found.version


def keys(store: Store, prefix: str) -> set[str]:
    """Keys under a prefix, without the test's own."""
    own = prefix.partition("/")[0] + "/"
    return {item.key.removeprefix(own) for item in store.objects(prefix)}
