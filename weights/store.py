"""Object stores, as far as weights need them: one small interface, three implementations, chosen by URL."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast
from urllib.parse import urlsplit

from clusters.storage import StoreSpec

PIECE = 2**20
"""Bytes that `read` yields at most at once: what lies in memory of one reading."""

SCHEMES = {
    "s3": "weights.stores.s3:S3Store",
    "gs": "weights.stores.gcs:GcsStore",
    "file": "weights.stores.directory:DirectoryStore",
}
"""Named, not imported: the clients of one provider take a second that users of another should not wait."""


@dataclass(frozen=True)
class Stored:
    """One object of a store."""

    key: str
    size: int
    """Bytes."""
    version: str
    """Opaque; another content has another one."""
    modified: float
    """Seconds since the epoch, by the store's clock."""


@dataclass(frozen=True)
class Unfinished:
    """An upload that was begun and neither completed nor aborted."""

    key: str
    token: str
    begun: float
    """Seconds since the epoch, by the store's clock."""


class Upload(Protocol):
    """One object on its way, in parts of `manifest.part_bytes(size)`, the last one shorter. Nothing of it is visible
    before `complete`. May be used from several threads, in order unless `any_order`.
    """

    @property
    def token(self) -> str:
        """Finds the upload again from another process. It may open the upload to whoever knows it: for no log."""
        ...

    @property
    def any_order(self) -> bool:
        """Whether parts may be sent in any order, several at once."""
        ...

    def landed(self) -> frozenset[int]:
        """Numbers, from 0, of the parts that the store keeps; without `any_order` these are the first ones."""
        ...

    def send(self, number: int, data: bytes) -> None:
        """Stores one whole part. The same bytes may be sent again; what other bytes do is up to the store."""
        ...

    def complete(self) -> None:
        """Makes the object appear, replacing what is there. Every part must have landed."""
        ...

    def abort(self) -> None:
        """Forgets the upload and its parts; nothing happens when it is gone."""
        ...


class Store(Protocol):
    """Keys are relative to the store's prefix and use `/`. Every method may be called from several threads, is bounded
    in time and retries, and raises only StoreError: AccessDenied for credentials, NotFound for a missing bucket.
    """

    @property
    def url(self) -> str:
        """The store's url in fleet.yaml; carries no secret."""
        ...

    @property
    def conditional(self) -> bool:
        """Whether `write_if` is honoured here: found out by asking once. Needs permission to write and delete."""
        ...

    def find(self, key: str) -> Stored | None:
        """The object, or None when there is none."""
        ...

    def objects(self, prefix: str) -> Iterator[Stored]:
        """Every object whose key starts with `prefix`, in no particular order."""
        ...

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes from `offset` on, at most `length`, in pieces of at most PIECE; fewer only where the object ends.
        Raises NotFound. `length` is positive; `offset` lies within the object.
        """
        ...

    def write(self, key: str, content: bytes) -> None:
        """Stores a few bytes, replacing what is there: all or nothing."""
        ...

    def write_if(self, key: str, content: bytes, version: str | None) -> bool:
        """Like `write`, if the object has this version still, or is absent for None; whether it did. A store that is
        not `conditional` writes always.
        """
        ...

    def copy(self, source: str, key: str, size: int) -> None:
        """Copies an object of `size` bytes within the store: no byte comes here. All or nothing. Raises NotFound."""
        ...

    def upload(self, key: str, size: int, token: str | None = None) -> Upload:
        """Begins to store an object of `size` bytes, more than 0, or goes on with an upload of the same key and size:
        the one that `token` names, or else one that the store can find itself. One that is gone begins anew.
        """
        ...

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Uploads of keys that start with `prefix`, as far as the store can tell: one may not keep them in a list."""
        ...

    def abort(self, unfinished: Unfinished) -> None:
        """Forgets an upload; nothing happens when it is gone."""
        ...

    def delete(self, key: str) -> None:
        """Removes the object; nothing happens when there is none."""
        ...

    def free(self) -> int | None:
        """Bytes that still fit, or None where nobody counts."""
        ...


def open_store(spec: StoreSpec, environ: Mapping[str, str] = os.environ) -> Store:
    """The store that a spec describes; connects with its first operation. `environ` names credential files."""
    module, _, name = SCHEMES[urlsplit(spec.url).scheme].partition(":")
    return cast(Store, getattr(import_module(module), name)(spec, environ))
