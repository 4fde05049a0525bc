"""What is particular to directories; what they have in common with other stores is in test_store.py."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from clusters.storage import StoreSpec
from weights.errors import NotFound, StoreError
from weights.manifest import PART
from weights.store import Unfinished
from weights.stores import directory_root
from weights.stores.directory import DirectoryStore
from weights.stores.directory_root import INCOMING, LOCK, Root, parts_of

SMALL_DISK = "mount -t tmpfs -o size=24m none {directory} && exec {python} -c '{code}'"
FILL = """
from clusters.storage import StoreSpec
from weights.stores.directory import DirectoryStore
from weights.errors import StoreError
store = DirectoryStore(StoreSpec(url="file://{directory}"), {{}})
size = 20 * 2**20
upload = store.upload("first", size)
for operation in (
    lambda: store.upload("second", size),
    lambda: store.write("large", bytes(size)),
):
    try:
        operation()
    except StoreError as error:
        print(error)
upload.send(0, bytes(16 * 2**20))
upload.send(1, bytes(4 * 2**20))
upload.complete()
print(store.find("first").size, len(list(store.unfinished(""))), store.free() <= 4 * 2**20)
"""


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return opened(tmp_path)


def test_no_object_lies_below_another(store: DirectoryStore) -> None:
    store.write("a", b"x")
    for key in ("a/b", "a/b/c"):
        with pytest.raises(StoreError, match="there is an object where its directory would be"):
            store.write(key, b"y")
        assert store.find(key) is None
        with pytest.raises(NotFound):
            list(store.read(key, 0, 1))
        store.delete(key)
    assert [stored.key for stored in store.objects("")] == ["a"]
    assert list(store.unfinished("")) == []


def test_a_directory_is_no_object(store: DirectoryStore) -> None:
    store.write("a/b", b"x")
    assert store.find("a") is None
    with pytest.raises(NotFound):
        list(store.read("a", 0, 1))
    with pytest.raises(StoreError, match="there is a directory of its name, with objects below"):
        store.write("a", b"y")
    store.delete("a")
    assert store.find("a/b")


def test_a_directory_goes_with_its_last_object(store: DirectoryStore) -> None:
    store.write("a/b/c", b"x")
    store.delete("a/b/c")
    store.write("a", b"y")
    assert [stored.key for stored in store.objects("")] == ["a"]


def test_what_does_not_fit_is_not_begun(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the disk is full: [\d,]+ bytes are free \(free some"):
        store.upload("key", 2**60)
    assert [path.name for path in (tmp_path / INCOMING).glob("*")] == []


def test_a_full_disk_is_an_error_and_keeps_what_landed(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts without privileges here")
    code = FILL.format(directory=tmp_path)
    script = SMALL_DISK.format(directory=tmp_path, python=sys.executable, code=code)
    output = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    begun, written, landed = output.splitlines()
    assert "can't upload second: the disk is full" in begun
    assert "can't write large: the disk is full" in written
    assert landed == f"{20 * 2**20} 0 True"


def test_what_kills_leave_is_listed_and_may_be_swept(store: DirectoryStore, tmp_path: Path) -> None:
    root = Root(store.url)
    killed = root.begin("aside-1", "a/copied")
    half_begun = root.begin("aside-2", "a/uploaded")
    half_begun.unlink()
    cut = root.begin("aside-3", "a/cut")
    parts_of(cut).write_text('"a/c')
    assert {(one.key, one.token) for one in store.unfinished("")} == {
        ("a/copied", killed.name),
        ("a/uploaded", half_begun.name),
        ("", cut.name),
    }
    for one in store.unfinished(""):
        store.abort(one)
    assert list((tmp_path / INCOMING).iterdir()) == []


def test_no_token_reaches_out_of_its_directory(store: DirectoryStore, tmp_path: Path) -> None:
    store.write("a", b"x")
    for token in ("../a", "..", ".", "", LOCK, str(tmp_path / "a")):
        store.abort(Unfinished("a", token, 0))
    assert store.find("a")
    assert (tmp_path / INCOMING / LOCK).exists()


def test_a_note_that_was_cut_is_none(store: DirectoryStore, tmp_path: Path) -> None:
    upload = store.upload("key", 12 * PART)
    upload.send(1, bytes(PART))
    with parts_of(tmp_path / INCOMING / upload.token).open("a") as notes:
        notes.write("1")  # of 11
    assert store.upload("key", 12 * PART).landed() == {1}


def test_a_part_that_is_sent_again_has_not_landed_meanwhile(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = store.upload("key", 2 * PART)
    upload.send(0, bytes(PART))
    upload.send(1, bytes(PART))
    monkeypatch.setattr(os, "pwrite", failing(errno.EIO))
    with pytest.raises(StoreError):
        upload.send(0, bytes(PART))
    assert upload.landed() == {1}


def test_an_upload_that_goes_meanwhile_is_an_error_that_says_so(store: DirectoryStore) -> None:
    upload = store.upload("key", 2 * PART)
    store.upload("key", 2 * PART, upload.token).abort()
    with pytest.raises(StoreError, match="it is gone; begin anew"):
        upload.send(0, bytes(PART))


def test_processes_take_turns(store: DirectoryStore, tmp_path: Path) -> None:
    store.write("counter", b"0")
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        list(pool.map(count_up, [tmp_path] * 4, [10] * 4))
    assert b"".join(store.read("counter", 0, 9)) == b"40"


def test_a_file_system_without_locks_has_no_conditions(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.conditional
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOSYS))
    assert (before, store.conditional) == (True, False)
    assert store.write_if("key", b"first", None)
    assert store.write_if("key", b"second", None)
    assert b"".join(store.read("key", 0, 9)) == b"second"


def test_a_lock_that_is_never_given_up_is_an_error(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("key", b"x")
    monkeypatch.setattr(directory_root, "LOCK_TIMEOUT_S", 0)
    with (tmp_path / INCOMING / LOCK).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=f"{INCOMING}/{LOCK}"):
            store.write("key", b"y")
    assert b"".join(store.read("key", 0, 9)) == b"x"


def test_what_the_kernel_can_not_copy_is_copied_by_hand(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(3 * 2**20 + 1)
    store.write("key", content)
    monkeypatch.setattr(os, "copy_file_range", failing(errno.EXDEV))
    store.copy("key", "copy", len(content))
    assert b"".join(store.read("copy", 0, len(content))) == content


def opened(directory: Path) -> DirectoryStore:
    return DirectoryStore(StoreSpec(url=f"file://{directory}"), {})


def count_up(directory: Path, times: int) -> None:
    """Adds one to a number in an object, so often."""
    store, done = opened(directory), 0
    while done < times:
        found = store.find("counter")
        value = int(b"".join(store.read("counter", 0, 9)))
        done += store.write_if("counter", b"%d" % (value + 1), found.version if found else None)


def failing(code: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail
