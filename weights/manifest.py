"""A release: what a model's files are, by name, size and digest. Two pushes of the same bytes are the same release.

Files are digested in parts, so that parts can be fetched, sent, checked and repaired each on its own and in any order.
The digest of a file is that of its parts' digests, and the release's id that of its files: whoever knows the id, for
instance from fleet.yaml, can tell whether any part is right, wherever its bytes and the manifest came from.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

from blake3 import blake3
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from clusters.fields import Name, ReleaseId
from weights.errors import InvalidManifest

MANIFEST = "manifest.json"
"""Its own file beside those of the release, so no file of a release has this name."""
MAX_BYTES = 64 * 2**20
MAX_PATH_BYTES = 512
"""S3 keys end at 1,024 bytes; the rest is for prefix, model and release."""
PART = 16 * 2**20
"""Small enough to be held in memory several times, large enough that a request for one costs little."""
MAX_PARTS = 8192
"""S3 takes 10,000; of larger files the parts grow."""


def part_bytes(size: int) -> int:
    """Length of the parts of a file of `size` bytes, but for the last one."""
    length = PART
    while length * MAX_PARTS < size:
        length *= 2
    return length


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a file; `offset` and `length` in bytes, `digest` in hex."""

    number: int
    offset: int
    length: int
    digest: str


def digest_of(content: bytes | memoryview) -> str:
    """Of a part."""
    return blake3(content).hexdigest()


def digest_of_parts(digests: Sequence[str]) -> str:
    """Of a file: of one part it is the part's."""
    return digests[0] if len(digests) == 1 else blake3(bytes.fromhex("".join(digests))).hexdigest()


def _safe(path: str) -> str:
    """A relative path that stays where it is put, on every store and disk."""
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("must be relative, without empty, '.' or '..' parts")
    if "\\" in path or not path.isprintable():
        raise ValueError("must have neither backslashes nor unprintable characters")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must not exceed {MAX_PATH_BYTES} bytes")
    if path == MANIFEST:
        raise ValueError("is reserved")
    return path


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class File(_Frozen):
    """One file of a release. `path` is relative and uses `/`; `size` in bytes; digests are BLAKE3 in lower-case hex."""

    path: Annotated[str, AfterValidator(_safe)]
    size: Annotated[int, Field(ge=0)]
    digest: Digest
    parts: tuple[Digest, ...] = ()
    """Of each part in their order; empty when there is one, which has the file's digest."""

    @model_validator(mode="after")
    def _parts_make_the_file(self) -> Self:
        count = -(-self.size // part_bytes(self.size))
        if len(self.parts) != (count if count > 1 else 0):
            raise ValueError(f"parts: has {len(self.parts)} digests where {self.size} bytes have {count} parts")
        if self.parts and digest_of_parts(self.parts) != self.digest:
            raise ValueError("digest: is not that of the parts")
        return self

    def layout(self) -> Iterator[Part]:
        """Its parts; an empty file has one, of length 0."""
        step = part_bytes(self.size)
        for number, digest in enumerate(self.parts or (self.digest,)):
            yield Part(number, number * step, min(step, self.size - number * step), digest)


class Manifest(_Frozen):
    """What a release consists of, and where it came from. Only name and bytes of the files are its identity."""

    version: Literal[2] = 2
    model: Name
    files: Annotated[tuple[File, ...], Field(min_length=1)]
    source: str
    revision: str | None = None
    """The source's own version, such as a commit."""
    parent: ReleaseId | None = None
    """The release that the model's home held latest when this one was pushed."""
    created: AwareDatetime

    @model_validator(mode="after")
    def _files_fit_in_one_directory(self) -> Self:
        # In this order a directory comes right before what lies in it.
        paths = sorted(file.path.split("/") for file in self.files)
        for one, next_one in pairwise(paths):
            if next_one[: len(one)] == one:
                raise ValueError(f"{'/'.join(one)} is there twice, or is a file and a directory")
        return self

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """BLAKE3, in hex, of the sorted list of paths, sizes and digests."""
        files = sorted([file.path, file.size, file.digest] for file in self.files)
        return blake3(_canonical(files)).hexdigest()

    @property
    def release(self) -> str:
        """The release's id: the first 12 hex digits of its digest."""
        return self.digest[:12]

    def to_json(self) -> bytes:
        """Canonical: equal manifests have equal bytes."""
        return _canonical(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Reads what an untrusted store holds. Raises InvalidManifest."""
        if len(text) > MAX_BYTES:
            raise InvalidManifest(f"it has {len(text):,} bytes, more than {MAX_BYTES:,}")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidManifest(f"{where}: {first['msg']}" if where else first["msg"]) from error


def manifest_of(
    model: str, files: Iterable[File], source: str, revision: str | None, created: datetime, parent: str | None = None
) -> Manifest:
    """A new manifest. Raises InvalidManifest when the files can't be a release."""
    try:
        return Manifest(
            model=model, files=tuple(files), source=source, revision=revision, parent=parent, created=created
        )
    except ValidationError as error:
        raise InvalidManifest(error.errors(include_url=False, include_input=False)[0]["msg"]) from error


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
