"""The directory of a store: how objects appear in it, who keeps whom out, and what its errors mean."""

import errno
import fcntl
import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from weights.errors import AccessDenied, NotFound, StoreError
from weights.store import Stored

INCOMING = ".incoming"
"""Where objects are written until they are whole; no key lies in it."""
PARTS = ".parts"
"""Beside each file in it: its key, and the numbers of the parts that landed, each a line."""
LOCK = "lock"
LOCK_TIMEOUT_S = 10
"""It is held for a rename only."""
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
FULL = {errno.ENOSPC, errno.EDQUOT}
READING = {"find", "list objects", "list uploads", "read"}


class Root:
    """It must exist, as a bucket must: creating it would hide a file system that is not mounted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.top = Path(unquote(urlsplit(url).path))
        self.incoming = self.top / INCOMING

    def path(self, key: str) -> Path:
        if not self.top.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(self.top))
        return self.top / key

    def stored(self, key: str) -> Stored | None:
        """What is there; a directory is nothing."""
        try:
            path = self.path(key)
            status = path.stat()
        except NotADirectoryError:
            return None
        except FileNotFoundError:
            if not self.top.is_dir():
                raise
            return None
        if not path.is_file():
            return None
        return Stored(key, status.st_size, f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}", status.st_mtime)

    def free(self) -> int:
        """Bytes."""
        disk = os.statvfs(self.path(""))
        return disk.f_bavail * disk.f_frsize

    @contextmanager
    def aside(self, key: str) -> Iterator[Path]:
        """An empty file that may become the object. What a kill leaves of it is an unfinished upload."""
        path = self.begin(f"aside-{secrets.token_hex(8)}", key)
        try:
            yield path
        finally:
            forget(path)

    def begin(self, name: str, key: str) -> Path:
        """A new file in INCOMING; its key is noted before it is there, so that it can always be told whose it is."""
        self.path(INCOMING).mkdir(exist_ok=True)
        path = self.incoming / name
        with parts_of(path).open("x") as notes:
            notes.write(json.dumps(key) + "\n")
        path.touch(exist_ok=False)
        return path

    def appear(self, aside: Path, key: str, allowed: Callable[[Stored | None], bool] | None = None) -> bool:
        """Makes a file the object, if what is there now allows it; whether it did. It survives a power cut then."""
        path = self.path(key)
        _sync(aside)
        with self.locked() as locked:
            if locked and allowed is not None and not allowed(self.stored(key)):
                return False
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                reason = "there is an object where its directory would be"
                raise StoreError(self.url, f"write {key}", reason) from error
            aside.replace(path)
        _sync(path.parent)
        return True

    def remove(self, key: str) -> None:
        """With the directories that it leaves empty: their names may be those of objects to come."""
        path = self.path(key)
        with self.locked():
            try:
                path.unlink()
                for directory in path.parents:
                    if directory == self.top:
                        break
                    directory.rmdir()
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}:
                    raise

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Keeps other writers out, threads and processes; False on a file system that knows no locks."""
        self.path(INCOMING).mkdir(exist_ok=True)
        descriptor = os.open(self.incoming / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield _locks(descriptor, time.monotonic() + LOCK_TIMEOUT_S)
        finally:
            os.close(descriptor)

    @contextmanager
    def translated(self, verb: str, key: str = "") -> Iterator[None]:
        """Whatever the system raises becomes a StoreError."""
        operation = f"{verb} {key}".rstrip()
        try:
            yield
        except OSError as error:
            raise self._error(operation, verb in READING, error) from error

    def _error(self, operation: str, reading: bool, error: OSError) -> StoreError:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            needed = f"needs permission to {'read' if reading else 'write'} {error.filename} as user {os.geteuid()}"
            return AccessDenied(self.url, operation, str(error), needed)
        if error.errno in FULL:
            reason = f"the disk is full: {self.free():,} bytes are free"
            return StoreError(self.url, operation, reason, "free some, or use a larger disk")
        if error.errno == errno.EISDIR and not reading:
            return StoreError(self.url, operation, "there is a directory of its name, with objects below")
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}:
            return NotFound(self.url, operation, str(error))
        return StoreError(self.url, operation, str(error))


def parts_of(path: Path) -> Path:
    """The notes about a file in INCOMING."""
    return path.with_name(path.name + PARTS)


def forget(path: Path) -> None:
    """Removes a file in INCOMING, and last the notes that tell of it."""
    path.unlink(missing_ok=True)
    parts_of(path).unlink(missing_ok=True)


def _locks(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                reason = f"another process has held {INCOMING}/{LOCK} for {LOCK_TIMEOUT_S} s"
                raise TimeoutError(errno.ETIMEDOUT, reason) from error
            time.sleep(random.uniform(0.001, 0.005))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        else:
            return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
