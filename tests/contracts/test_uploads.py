"""What every store promises about uploads (`weights.store.Upload`), asked of each of them."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contracts.conftest import Place
from weights.errors import StoreError
from weights.manifest import PART
from weights.store import Store, Unfinished, Upload, open_store

CONTENT = random.Random(2).randbytes(2 * PART + 5)
COUNT = 3


@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, len(CONTENT)])
def test_what_is_uploaded_is_read(store: Store, prefix: str, size: int) -> None:
    upload = store.upload(prefix + "object", size)
    assert upload.landed() == frozenset()
    send(upload, CONTENT[:size])
    upload.complete()
    assert read(store, prefix + "object") == CONTENT[:size]


def test_parts_come_in_any_order_where_they_may(store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    if not upload.any_order:
        pytest.skip("this store takes them in order")
    with ThreadPoolExecutor(COUNT) as pool:
        list(pool.map(lambda number: upload.send(number, part(CONTENT, number)), reversed(range(COUNT))))
    assert upload.landed() == frozenset(range(COUNT))
    upload.complete()
    assert read(store, prefix + "object") == CONTENT


@pytest.mark.parametrize("size", [5, len(CONTENT)])
def test_nothing_is_seen_before_the_end(store: Store, prefix: str, size: int) -> None:
    upload = store.upload(prefix + "object", size)
    send(upload, CONTENT[:size])
    assert store.find(prefix + "object") is None
    assert list(store.objects(prefix)) == []
    upload.complete()
    assert len(list(store.objects(prefix))) == 1


def test_what_was_there_stays_until_the_end(store: Store, prefix: str) -> None:
    store.write(prefix + "object", b"before")
    upload = store.upload(prefix + "object", len(CONTENT))
    send(upload, CONTENT)
    assert read(store, prefix + "object") == b"before"
    upload.complete()
    assert read(store, prefix + "object") == CONTENT


def test_a_part_may_be_sent_again(store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    if not upload.any_order:
        pytest.skip("this store takes each once")
    upload.send(0, part(CONTENT, 0))
    send(upload, CONTENT)
    upload.complete()
    assert read(store, prefix + "object") == CONTENT


def test_another_content_of_a_part_replaces_it_or_is_refused(store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    if not upload.any_order:
        pytest.skip("this store takes each once")
    upload.send(0, bytes(PART))
    try:
        send(upload, CONTENT)
    except StoreError:
        upload.abort()  # rclone: what it was sent first is written by now
        return
    upload.complete()
    assert read(store, prefix + "object") == CONTENT


def test_another_process_goes_on_by_the_token(place: Place, store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    send(upload, CONTENT, range(2))
    again = open_store(place.spec, place.environ).upload(prefix + "object", len(CONTENT), upload.token)
    assert again.landed() == {0, 1}
    assert again.token == upload.token
    send(again, CONTENT, range(2, COUNT))
    again.complete()
    assert read(store, prefix + "object") == CONTENT


def test_another_process_goes_on_where_uploads_are_listed(place: Place, store: Store, prefix: str) -> None:
    send(store.upload(prefix + "object", len(CONTENT)), CONTENT, range(1))
    listed = bool(list(store.unfinished(prefix)))
    again = open_store(place.spec, place.environ).upload(prefix + "object", len(CONTENT))
    assert again.landed() == ({0} if listed else frozenset())
    send(again, CONTENT, sorted(set(range(COUNT)) - again.landed()))
    again.complete()
    assert read(store, prefix + "object") == CONTENT
    assert list(store.unfinished(prefix)) == []


def test_a_hole_is_found(place: Place, store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    if not upload.any_order:
        pytest.skip("this store takes parts in order")
    send(upload, CONTENT, (2, 0))
    again = open_store(place.spec, place.environ).upload(prefix + "object", len(CONTENT), upload.token)
    assert again.landed() == {0, 2}
    with pytest.raises(StoreError):
        again.complete()
    assert store.find(prefix + "object") is None
    send(again, CONTENT, (1,))
    again.complete()
    assert read(store, prefix + "object") == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT) - 1, PART + 1, 5])
def test_another_size_begins_anew(place: Place, store: Store, prefix: str, size: int) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    send(upload, CONTENT)
    again = open_store(place.spec, place.environ).upload(prefix + "object", size, upload.token)
    assert again.landed() == frozenset()
    send(again, CONTENT[::-1][:size])
    again.complete()
    assert read(store, prefix + "object") == CONTENT[::-1][:size]


@pytest.mark.parametrize("token", ["", "made-up", "../made-up", "http://127.0.0.1:1/made-up"])
def test_a_made_up_token_begins_anew(store: Store, prefix: str, token: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT), token)
    assert upload.landed() == frozenset()
    send(upload, CONTENT)
    upload.complete()
    assert read(store, prefix + "object") == CONTENT


def test_a_completed_upload_is_gone(place: Place, store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    send(upload, CONTENT)
    upload.complete()
    assert list(store.unfinished(prefix)) == []
    again = open_store(place.spec, place.environ).upload(prefix + "object", len(CONTENT), upload.token)
    assert again.landed() == frozenset()
    send(again, CONTENT[::-1])
    again.complete()
    assert read(store, prefix + "object") == CONTENT[::-1]


def test_an_aborted_upload_is_gone(store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    send(upload, CONTENT, range(2))
    upload.abort()
    upload.abort()
    assert list(store.unfinished(prefix)) == []
    again = store.upload(prefix + "object", len(CONTENT), upload.token)
    assert again.landed() == frozenset()
    again.abort()
    assert store.find(prefix + "object") is None


def test_a_small_upload_may_be_aborted(store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", 5)
    upload.send(0, b"small")
    upload.abort()
    upload.abort()
    assert store.find(prefix + "object") is None
    assert list(store.unfinished(prefix)) == []


def test_an_abandoned_upload_may_be_aborted_by_another_process(place: Place, store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    send(upload, CONTENT, range(2))
    other = open_store(place.spec, place.environ)
    orphan = Unfinished(prefix + "object", upload.token, time.time())
    other.abort(orphan)
    other.abort(orphan)
    assert other.upload(prefix + "object", len(CONTENT), upload.token).landed() == frozenset()


def test_unfinished_uploads_are_listed_where_a_list_is_kept(store: Store, prefix: str) -> None:
    uploads = {f"{prefix}{name}": store.upload(prefix + name, len(CONTENT)) for name in ("a/1", "a/b 2", "ab/ü", "c")}
    for upload in uploads.values():
        send(upload, CONTENT, range(1))
    listed = {one.key: one for one in store.unfinished(prefix)}
    if not listed:
        pytest.skip("this store keeps no list")
    assert {one.key: one.token for one in listed.values()} == {key: upload.token for key, upload in uploads.items()}
    # moto dates every upload back to the same day of 2010.
    assert all(one.begun < time.time() + 120 for one in listed.values())
    assert {one.key for one in store.unfinished(prefix + "a")} == {prefix + "a/1", prefix + "a/b 2", prefix + "ab/ü"}
    for one in listed.values():
        store.abort(one)
    assert list(store.unfinished(prefix)) == []


def send(upload: Upload, content: bytes, numbers: object = None) -> None:
    for number in numbers if isinstance(numbers, (range, tuple, list)) else range(-(-len(content) // PART)):
        upload.send(number, part(content, number))


def part(content: bytes, number: int) -> bytes:
    return content[number * PART : (number + 1) * PART]


def read(store: Store, key: str) -> bytes:
    return b"".join(store.read(key, 0, 2 * len(CONTENT)))
