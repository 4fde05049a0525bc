"""A directory as a store: a disk of this machine, or a shared file system that is mounted on it."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from clusters.spec import StoreSpec
from weights.errors import AccessDenied, NotFound, StoreError
from weights.store import CHUNK, Stored

INCOMING = ".incoming"
"""Where objects are written until they are whole; no key lies in it."""


class DirectoryStore:
    """The directory must exist, as a bucket must: creating it would hide a file system that is not mounted."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str]) -> None:
        self.url = spec.url
        self._root = Path(unquote(urlsplit(spec.url).path))

    def size(self, key: str) -> int | None:
        with self._translated("read", key):
            path = self._path(key)
            return path.stat().st_size if path.is_file() else None

    def objects(self, prefix: str) -> Iterator[Stored]:
        with self._translated("list objects"):
            # Only the directories below the last slash of the prefix can hold its keys.
            top = self._path(prefix.rpartition("/")[0])
            for directory, below, files in os.walk(top, onerror=_raise_unless_absent):
                if directory == str(self._root):
                    below[:] = [name for name in below if name != INCOMING]
                for path in (Path(directory, name) for name in files):
                    key = path.relative_to(self._root).as_posix()
                    if key.startswith(prefix):
                        yield Stored(key, path.stat().st_size)

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._translated("read", key), self._path(key).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, key: str, content: Path | bytes) -> None:
        with self._translated("write", key):
            path = self._path(key)
            incoming = self._root / INCOMING
            incoming.mkdir(exist_ok=True)
            aside = incoming / f"{os.getpid()}-{secrets.token_hex(8)}"
            try:
                with _opened(content) as source, aside.open("xb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                    file.flush()
                    os.fsync(file.fileno())
                path.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        with self._translated("delete", key):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(self._root))
        return self._root / key

    @contextmanager
    def _translated(self, verb: str, key: str = "") -> Iterator[None]:
        operation = f"{verb} {key}".rstrip()
        try:
            yield
        except PermissionError as error:
            raise AccessDenied(
                self.url, operation, str(error), f"needs permission to {verb} {error.filename}"
            ) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(self.url, operation, str(error)) from error
        except OSError as error:
            raise StoreError(self.url, operation, str(error)) from error


def _opened(content: Path | bytes) -> BinaryIO:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
