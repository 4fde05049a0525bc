"""What is particular to S3: large copies, servers that know less of the protocol, and answers that get lost."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import botocore.auth
import pytest
from botocore.compat import get_current_datetime

from clusters.launch.processes import Run, end
from clusters.launch.stores import LocalStore, start_store
from clusters.spec import Provider
from tests.contracts.cutting_proxy import cutting_proxy
from tests.contracts.test_store import shifted
from tests.contracts.test_uploads import CONTENT, part, read, send
from tests.local_stores import running, site_of
from weights.errors import AccessDenied, NotFound, StoreError
from weights.manifest import PART
from weights.store import Store, open_store
from weights.stores import s3

MIB = 2**20


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Provider, LocalStore]]:
    with running(Provider.AWS, Provider.ONPREM, directory=tmp_path_factory.mktemp("s3")) as stores:
        yield stores


@pytest.fixture(params=[Provider.AWS, Provider.ONPREM])
def store(servers: dict[Provider, LocalStore], request: pytest.FixtureRequest) -> Store:
    local = servers[request.param]
    return open_store(local.spec, local.environ)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}/"


def test_a_large_object_is_copied(store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # moto copies by parts; rclone takes such a request for an empty part, and the bytes come here.
    monkeypatch.setattr(s3, "COPY_BYTES", 10 * MIB)
    monkeypatch.setattr(s3, "COPY_PART", 10 * MIB)
    store.write(prefix + "a b", CONTENT)
    store.copy(prefix + "a b", prefix + "copy", len(CONTENT))
    assert read(store, prefix + "copy") == CONTENT
    assert list(store.unfinished(prefix)) == []


def test_a_large_object_that_is_not_there_is_not_copied(
    store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "COPY_BYTES", 10 * MIB)
    monkeypatch.setattr(s3, "COPY_PART", 10 * MIB)
    with pytest.raises(NotFound, match="absent"):
        store.copy(prefix + "absent", prefix + "copy", len(CONTENT))
    assert store.find(prefix + "copy") is None


def test_what_another_process_completed_is_complete(store: Store, prefix: str) -> None:
    one = store.upload(prefix + "object", len(CONTENT))
    send(one, CONTENT)
    other = store.upload(prefix + "object", len(CONTENT), one.token)
    other.complete()
    one.complete()
    assert read(store, prefix + "object") == CONTENT


def test_what_another_process_aborted_is_not(store: Store, prefix: str) -> None:
    store.write(prefix + "object", bytes(len(CONTENT)))
    one = store.upload(prefix + "object", len(CONTENT))
    send(one, CONTENT)
    store.upload(prefix + "object", len(CONTENT), one.token).abort()
    with pytest.raises(StoreError):
        one.complete()
    assert read(store, prefix + "object") == bytes(len(CONTENT))


def test_a_part_of_a_wrong_size_is_of_another_object(store: Store, prefix: str) -> None:
    upload = store.upload(prefix + "object", len(CONTENT))
    upload.send(0, CONTENT[: PART - 1])
    again = store.upload(prefix + "object", len(CONTENT), upload.token)
    assert again.token != upload.token
    assert again.landed() == frozenset()


def test_of_several_uploads_the_newest_goes_on(servers: dict[Provider, LocalStore], prefix: str) -> None:
    # moto dates all of them alike.
    local = servers[Provider.ONPREM]
    store = open_store(local.spec, local.environ)
    old = store.upload(prefix + "object", len(CONTENT))
    old.send(0, CONTENT[:5])
    new = store.upload(prefix + "object", len(CONTENT))
    assert new.token != old.token
    new.send(1, part(CONTENT, 1))
    again = store.upload(prefix + "object", len(CONTENT))
    assert again.token == new.token
    assert again.landed() == {1}
    send(again, CONTENT, (0, 2))
    again.complete()
    assert read(store, prefix + "object") == CONTENT


def test_a_server_that_forgot_an_upload_is_sent_all_of_it(tmp_path: Path) -> None:
    # rclone keeps uploads in memory.
    before, after = Run.new(tmp_path), Run.new(tmp_path)
    site = site_of(Provider.ONPREM)
    try:
        local = start_store(before, site, tmp_path / "store")
        upload = open_store(local.spec, local.environ).upload("object", len(CONTENT))
        send(upload, CONTENT, range(2))
        end(before.id, grace_s=0)
        local = start_store(after, site, tmp_path / "store")
        store = open_store(local.spec, local.environ)
        again = store.upload("object", len(CONTENT), upload.token)
        assert again.landed() == frozenset()
        send(again, CONTENT)
        again.complete()
        assert read(store, "object") == CONTENT
    finally:
        end(before.id)
        end(after.id)


def test_a_conditional_write_whose_answer_was_lost_is_won(servers: dict[Provider, LocalStore], prefix: str) -> None:
    local = servers[Provider.AWS]
    assert local.spec.endpoint
    # So many that "100 Continue" passes, and the content is sent.
    with cutting_proxy(local.spec.endpoint, after_bytes=26, connections=1) as endpoint:
        store = open_store(local.spec.model_copy(update={"endpoint": endpoint}), local.environ)
        assert store.write_if(prefix + "object", b"mine", None)
        assert not store.write_if(prefix + "object", b"mine", None)


@pytest.mark.parametrize(("hours", "side"), [(2, "(1:59:59|2:00:0.) ahead of"), (-2, "(1:59:5.|2:00:00) behind")])
def test_a_wrong_clock_is_told_by_how_much(
    servers: dict[Provider, LocalStore], monkeypatch: pytest.MonkeyPatch, hours: int, side: str
) -> None:
    local, shift = servers[Provider.ONPREM], timedelta(hours=hours)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", shifted(get_current_datetime, shift))
    monkeypatch.setattr(time, "time", shifted(time.time, shift.total_seconds()))
    store = open_store(local.spec, local.environ)
    for operation in (lambda: store.find("key"), lambda: list(store.objects("")), lambda: store.write("key", b"x")):
        with pytest.raises(AccessDenied, match=f"this machine's clock is ({side}) the store's"):
            operation()
