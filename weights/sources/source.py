"""What a model is pushed from: a local directory, a repository of the Hugging Face hub, or a bucket.

A release holds every file below the place that is named. Left out is what tools keep for themselves: names that begin
with a dot (`.git`, `.cache`, `.gitattributes`) and `__pycache__`. Nothing is chosen by suffix: an engine may need any
of the rest.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from clusters.storage import StoreSpec
from weights.copying.pace import Pace
from weights.errors import SourceError
from weights.manifest import File, Part, digest_of, digest_of_parts, part_bytes
from weights.store import open_store

BUCKETS = ("s3://", "gs://")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What becomes a part of a file, once it was digested; in bytes."""

    number: int
    offset: int
    length: int


@dataclass(frozen=True)
class SourceFile:
    """A file to push: `path` is relative and uses `/`, `size` is in bytes, `sha256` in hex if the source states it."""

    path: str
    size: int
    sha256: str | None = None

    def stretches(self) -> Iterator[Stretch]:
        """Its parts; an empty file has none."""
        step = part_bytes(self.size)
        return (
            Stretch(number, offset, min(step, self.size - offset))
            for number, offset in enumerate(range(0, self.size, step))
        )

    def digested(self, digests: Sequence[str]) -> File:
        """As a file of a release, from the digests of its parts."""
        parts = tuple(digests) if len(digests) > 1 else ()
        return File(path=self.path, size=self.size, digest=digest_of_parts(digests), parts=parts)


class Source(Protocol):
    """Files that are read in any order and from several threads. Methods raise SourceError, and StoreError where the
    source is a bucket; each is bounded in time and retries.
    """

    @property
    def name(self) -> str:
        """As fleet.yaml names it."""
        ...

    @property
    def revision(self) -> str | None:
        """Another content has another one; None where only reading could tell."""
        ...

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """At least one; sorted by path."""
        ...

    @property
    def local(self) -> bool:
        """Whether reading twice costs little."""
        ...

    def read(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes from `offset` on, at most `length`, in pieces of at most `store.PIECE`; fewer only where the file
        ends.
        """
        ...


def open_source(
    name: str,
    base: Path,
    environ: Mapping[str, str] = os.environ,
    endpoint: str | None = None,
    profile: str | None = None,
) -> Source:
    """A source as a model of fleet.yaml names it; directories are relative to `base`. Raises SourceError, StoreError.

    `environ` has the hub's HF_ENDPOINT and HF_TOKEN, and names credential files; `endpoint` and `profile` are those of
    a bucket, as in the spec of a store.
    """
    if name.startswith("hf://"):
        from weights.sources.hub import HubSource  # a fifth of a second to import

        return HubSource(name, environ)
    if name.startswith(BUCKETS):
        from weights.sources.bucket import BucketSource

        try:
            spec = StoreSpec(url=name, endpoint=endpoint, profile=profile)
        except ValidationError as error:
            raise SourceError(f"{name}: {error.errors(include_url=False, include_input=False)[0]['msg']}") from error
        return BucketSource(name, open_store(spec, environ))
    from weights.sources.directory import DirectorySource

    return DirectorySource(name, base / name)


@dataclass(frozen=True)
class SourceParts:
    """The files of a release as their source has them."""

    source: Source
    pace: Pace

    def read(self, file: File, part: Part) -> bytes:
        """Raises SourceError when the part is not, or no longer, what was digested."""
        content = read_stretch(self.source, file.path, part.offset, part.length, self.pace)
        if digest_of(content) != part.digest:
            raise changed(self.source, file.path)
        return content


def read_stretch(source: Source, path: str, offset: int, length: int, pace: Pace) -> bytes:
    """All of a stretch of a file, which is not empty. Raises SourceError when the file ends before."""
    # Pieces that wait to be joined would lie in memory twice.
    content = BytesIO()
    for piece in pace.pieces(source.read(path, offset, length)):
        content.write(piece)
    if content.tell() != length:
        raise changed(source, path)
    return content.getvalue()


def changed(source: Source, path: str) -> SourceError:
    return SourceError(f"{path} of {source.name} changed while it was pushed; push it again when nobody writes there")


def belongs(path: str) -> bool:
    """Whether a file, or what lies in a directory, becomes part of a release."""
    return not any(name.startswith(".") or name == "__pycache__" for name in path.split("/"))


def usable(name: str, found: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """The files of a source, sorted. Raises SourceError when there are none, or one that no release can hold: said now,
    and not after hours of reading.
    """
    files = tuple(sorted(found, key=lambda file: file.path))
    if not files:
        raise SourceError(f"{name} holds no files")
    for file in files:
        try:
            File(path=file.path, size=0, digest=digest_of(b""))
        except ValidationError as error:
            reason = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise SourceError(f"{name}: no release can hold {file.path!r}: {reason}") from error
    return files
