"""Object stores, as far as weights need them: one small interface, three implementations, chosen by URL."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

from clusters.spec import StoreSpec

CHUNK = 8 * 2**20
"""Bytes that one `read` asks for at most: bounds memory, and what a failed request costs."""

SCHEMES = {
    "s3": "weights.s3:S3Store",
    "gs": "weights.gcs:GcsStore",
    "file": "weights.directory:DirectoryStore",
}
"""Named, not imported: the clients of one provider take a second that users of another should not wait."""


@dataclass(frozen=True)
class Stored:
    """One object of a store; `size` in bytes."""

    key: str
    size: int


class Store(Protocol):
    """Keys are relative to the store's prefix and use `/`. Every method may be called from several threads, is bounded
    in time and retries, and raises only StoreError: AccessDenied for credentials, NotFound for a missing bucket.
    """

    @property
    def url(self) -> str:
        """The store's url in fleet.yaml; carries no secret."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of the object, or None when there is none."""
        ...

    def objects(self, prefix: str) -> Iterator[Stored]:
        """Every object whose key starts with `prefix`, in no particular order."""
        ...

    def read(self, key: str, offset: int, length: int) -> bytes:
        """The bytes from `offset` on, at most `length`; fewer only where the object ends. Raises NotFound.

        `length` is positive and bounded by the caller (CHUNK); `offset` lies within the object.
        """
        ...

    def write(self, key: str, content: Path | bytes) -> None:
        """Store a file, or a few bytes, replacing what is there: all or nothing. Empty objects are allowed."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        ...


def open_store(spec: StoreSpec, environ: Mapping[str, str] = os.environ) -> Store:
    """The store that a spec describes; connects with its first operation. `environ` names credential files."""
    module, _, name = SCHEMES[urlsplit(spec.url).scheme].partition(":")
    return cast(Store, getattr(import_module(module), name)(spec, environ))


def chunks(store: Store, key: str, size: int) -> Iterator[bytes]:
    """The first `size` bytes of an object in pieces of at most CHUNK; ends early where the object does."""
    offset = 0
    while offset < size:
        piece = store.read(key, offset, min(CHUNK, size - offset))
        if not piece:
            return
        yield piece
        offset += len(piece)
