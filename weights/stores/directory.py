"""A directory as a store: a disk of this machine, or a shared file system that is mounted on it."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from clusters.storage import StoreSpec
from weights.store import PIECE, Stored, Unfinished, Upload
from weights.stores import directory_upload
from weights.stores.directory_root import INCOMING, Root

COPIED = 2**30
"""Bytes that the kernel is asked to copy at once."""
NO_COPYING = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}


class DirectoryStore:
    """The directory must exist. Several processes, on several machines, may use it at once."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str]) -> None:
        self.url = spec.url
        self._root = Root(spec.url)

    @property
    def conditional(self) -> bool:
        with self._root.translated("write"), self._root.locked() as locked:
            return locked

    def find(self, key: str) -> Stored | None:
        with self._root.translated("find", key):
            return self._root.stored(key)

    def objects(self, prefix: str) -> Iterator[Stored]:
        with self._root.translated("list objects"):
            # Only the directories below the last slash of the prefix can hold its keys.
            top = self._root.path(prefix.rpartition("/")[0])
            for directory, below, files in os.walk(top, onerror=_raise_unless_absent):
                if directory == str(self._root.top):
                    below[:] = [name for name in below if name != INCOMING]
                for path in (Path(directory, name) for name in files):
                    key = path.relative_to(self._root.top).as_posix()
                    # What goes meanwhile is not there.
                    if key.startswith(prefix) and (stored := self._root.stored(key)):
                        yield stored

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        with self._root.translated("read", key), self._root.path(key).open("rb", buffering=0) as file:
            while piece := os.pread(file.fileno(), min(PIECE, end - offset), offset):
                yield piece
                offset += len(piece)

    def write(self, key: str, content: bytes) -> None:
        with self._root.translated("write", key), self._root.aside(key) as aside:
            aside.write_bytes(content)
            self._root.appear(aside, key)

    def write_if(self, key: str, content: bytes, version: str | None) -> bool:
        with self._root.translated("write", key), self._root.aside(key) as aside:
            aside.write_bytes(content)
            return self._root.appear(aside, key, lambda there: (there.version if there else None) == version)

    def copy(self, source: str, key: str, size: int) -> None:
        with (
            self._root.translated("copy", source),
            self._root.path(source).open("rb", buffering=0) as file,
            self._root.aside(key) as aside,
        ):
            with aside.open("wb", buffering=0) as sink:
                _copy(file, sink)
            self._root.appear(aside, key)

    def upload(self, key: str, size: int, token: str | None = None) -> Upload:
        return directory_upload.open_upload(self._root, key, size, token)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        return directory_upload.unfinished(self._root, prefix)

    def abort(self, unfinished: Unfinished) -> None:
        directory_upload.abort(self._root, unfinished.key, unfinished.token)

    def delete(self, key: str) -> None:
        with self._root.translated("delete", key):
            self._root.remove(key)

    def free(self) -> int | None:
        with self._root.translated("find"):
            return self._root.free()


def _copy(source: BinaryIO, sink: BinaryIO) -> None:
    """By the kernel, which may share the blocks; else through here."""
    try:
        while os.copy_file_range(source.fileno(), sink.fileno(), COPIED):
            pass
    except OSError as error:
        if error.errno not in NO_COPYING:
            raise
        shutil.copyfileobj(source, sink, PIECE)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
