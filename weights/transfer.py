"""Files of a release on their way: into a store, out of a store, and never believed before they were hashed."""

import errno
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from weights.errors import Corrupt, DiskFull
from weights.manifest import File, Manifest
from weights.parallel import for_each
from weights.plan import plan
from weights.registry import publish, release_prefix, stored_files
from weights.store import CHUNK, Store, chunks

Origin = Callable[[File], AbstractContextManager[Path]]
"""Lends a file of the release on this machine's disk."""


class Progress(Protocol):
    """Told what a site's store still needs, in bytes; may be called from several threads."""

    def begin(self, site: str, size: int) -> None:
        """`size` bytes will be verified at the site's store."""
        ...

    def advance(self, site: str, size: int) -> None:
        """So many more bytes were verified there; negative when they turned out wrong."""
        ...


class _Silent:
    def begin(self, site: str, size: int) -> None:
        pass

    def advance(self, site: str, size: int) -> None:
        pass


SILENT: Progress = _Silent()
"""For when no one looks."""


@dataclass(frozen=True)
class Delivery:
    """What it took to have a release at a store."""

    sent: tuple[File, ...]
    kept: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes sent."""
        return sum(file.size for file in self.sent)


def deliver(
    manifest: Manifest, origin: Origin, store: Store, site: str, parallel_files: int, progress: Progress
) -> Delivery:
    """Makes the release exist at the store: sends what is lacking, reads it back, publishes the manifest last."""
    todo = plan(manifest, stored_files(store, manifest.model, manifest.release))
    progress.begin(site, todo.size)
    prefix = release_prefix(manifest.model, manifest.release)

    def send(file: File) -> None:
        with origin(file) as path:
            store.write(prefix + file.path, path)
        try:
            read_back(file)
        except Corrupt:
            store.delete(prefix + file.path)
            raise

    def read_back(file: File) -> None:
        verify(store, prefix + file.path, file, lambda size: progress.advance(site, size))

    def is_right(file: File) -> bool:
        try:
            read_back(file)
        except Corrupt:
            return False
        return True

    right = for_each(is_right, todo.verify, parallel_files)
    wrong = {file.path for file, ok in zip(todo.verify, right, strict=True) if not ok}
    lacking = {file.path for file in todo.copy} | wrong
    sent = tuple(file for file in manifest.files if file.path in lacking)
    for_each(send, sent, parallel_files)
    if todo.publish:
        publish(store, manifest)
    return Delivery(sent=sent, kept=tuple(file for file in manifest.files if file.path not in lacking))


def verify(store: Store, key: str, file: File, advance: Callable[[int], None]) -> None:
    """Reads an object and raises Corrupt when its bytes are not the file's."""
    digest, size = hashlib.sha256(), 0
    for piece in chunks(store, key, file.size):
        digest.update(piece)
        size += len(piece)
        advance(len(piece))
    try:
        _check(file, size, digest.hexdigest(), store)
    except Corrupt:
        advance(-size)
        raise


def download(store: Store, key: str, file: File, path: Path) -> None:
    """Writes an object to a new local file. Raises Corrupt when its bytes are not the file's, DiskFull."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as local:
            for piece in chunks(store, key, file.size):
                digest.update(piece)
                size += len(piece)
                local.write(piece)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(path.parent), file.size) from error
        raise
    _check(file, size, digest.hexdigest(), store)


def digest_of(path: Path) -> tuple[int, str]:
    """Size in bytes and sha256 in hex of a local file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def _check(file: File, size: int, digest: str, store: Store) -> None:
    if size != file.size:
        raise Corrupt(file.path, store.url, f"it has {size:,} bytes instead of {file.size:,}")
    if digest != file.sha256:
        raise Corrupt(file.path, store.url, f"its sha256 is {digest} instead of {file.sha256}")
