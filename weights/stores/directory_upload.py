"""Uploads to a directory: a file with room for all parts, beside it a list of those that landed."""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from weights.errors import StoreError
from weights.manifest import part_bytes
from weights.store import Unfinished
from weights.stores.directory_root import INCOMING, PARTS, Root, forget, parts_of


class DirectoryUpload:
    """Keeps nothing but names, so that several processes may work on one."""

    any_order = True

    def __init__(self, root: Root, key: str, size: int, path: Path) -> None:
        self._root = root
        self._key = key
        self._size = size
        self._path = path

    @property
    def token(self) -> str:
        return self._path.name

    def landed(self) -> frozenset[int]:
        with self._root.translated("upload", self._key):
            return frozenset(_landed(self._path) or ())

    def send(self, number: int, data: bytes) -> None:
        with self._root.translated("upload", self._key):
            if number in (_landed(self._path) or ()):
                _note(self._path, f"-{number}")
            self._store(number * part_bytes(self._size), data)
            _note(self._path, f"{number}")

    def complete(self) -> None:
        count = -(-self._size // part_bytes(self._size))
        if lacking := count - len(self.landed()):
            raise self._error(f"{lacking} of its {count} parts have not landed")
        with self._root.translated("upload", self._key):
            self._root.appear(self._path, self._key)
            forget(self._path)

    def abort(self) -> None:
        abort(self._root, self._key, self.token)

    def _store(self, offset: int, data: bytes) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY)
        except FileNotFoundError as error:
            raise self._error("it is gone; begin anew") from error
        try:
            rest = memoryview(data)
            while rest:
                written = os.pwrite(descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
            # Before it is noted, so that a power cut leaves no note of what is not there.
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _error(self, reason: str) -> StoreError:
        return StoreError(self._root.url, f"upload {self._key}", reason)


def open_upload(root: Root, key: str, size: int, token: str | None) -> DirectoryUpload:
    """The upload that `token` names, else the newest of the key and size, else a new one."""
    stem = f"{sha256(key.encode()).hexdigest()}-{size}-"
    with root.translated("upload", key):
        path = _there(root, stem, token or "") or _newest(root, stem) or _begun(root, stem, key, size)
    return DirectoryUpload(root, key, size, path)


def unfinished(root: Root, prefix: str) -> Iterator[Unfinished]:
    """Also what kills left of writing and copying. As old as what was noted last."""
    with root.translated("list uploads"):
        for notes in root.path(INCOMING).glob(f"*{PARTS}"):
            try:
                key, modified = _key(notes), notes.stat().st_mtime
            except FileNotFoundError:
                continue
            if key.startswith(prefix):
                yield Unfinished(key, notes.name.removesuffix(PARTS), modified)


def abort(root: Root, key: str, token: str) -> None:
    """Forgets an upload; nothing happens when it is gone."""
    with root.translated("abort the upload of", key):
        path = root.path(INCOMING) / token
        if "/" not in token and parts_of(path).is_file():  # and not the lock, or what lies elsewhere
            forget(path)


def _there(root: Root, stem: str, token: str) -> Path | None:
    path = root.path(INCOMING) / token
    return path if token.startswith(stem) and "/" not in token and _landed(path) is not None else None


def _newest(root: Root, stem: str) -> Path | None:
    ages = {}
    for notes in root.path(INCOMING).glob(f"{stem}*{PARTS}"):
        path = notes.with_name(notes.name.removesuffix(PARTS))
        try:
            ages[path] = path.stat().st_mtime
        except FileNotFoundError:
            continue
    return max(ages, key=ages.__getitem__, default=None)


def _begun(root: Root, stem: str, key: str, size: int) -> Path:
    if size > root.free():
        # Asked first, since an allocation that fails fills the disk for a moment.
        raise OSError(errno.ENOSPC, "the disk is full")
    path = root.begin(stem + secrets.token_hex(8), key)
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        forget(path)
        raise
    return path


def _note(path: Path, line: str) -> None:
    """At once: other threads note theirs."""
    descriptor = os.open(parts_of(path), os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def _landed(path: Path) -> set[int] | None:
    """None when the upload is gone. `-3` takes part 3 back, which is being sent again."""
    if not path.is_file():
        return None
    try:
        _, *lines = parts_of(path).read_text().split("\n")
    except FileNotFoundError:
        return None
    landed: set[int] = set()
    for line in lines[:-1]:  # the last ends the file, or was cut
        if line.startswith("-"):
            landed.discard(int(line[1:]))
        else:
            landed.add(int(line))
    return landed


def _key(notes: Path) -> str:
    """Empty when a power cut came between a file and its content."""
    first, newline, _ = notes.read_text().partition("\n")
    return str(json.loads(first)) if newline else ""
