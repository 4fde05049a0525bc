"""A release: what a model's files are, by name, size and digest. Two pushes of the same bytes are the same release."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from clusters.spec import Name
from weights.errors import InvalidManifest

MANIFEST = "manifest.json"
"""Its own file beside those of the release, so no file of a release has this name."""
MAX_BYTES = 16 * 2**20
MAX_PATH_BYTES = 512
"""S3 keys end at 1,024 bytes; the rest is for prefix, model and release."""


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


class File(_Frozen):
    """One file of a release. `path` is relative and uses `/`; `size` in bytes; `sha256` in lower-case hex."""

    path: Annotated[str, AfterValidator(_safe)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(_Frozen):
    """What a release consists of, and where it came from. Only name and bytes of the files are its identity."""

    version: Literal[1] = 1
    model: Name
    files: Annotated[tuple[File, ...], Field(min_length=1)]
    source: str
    revision: str | None = None
    """The source's own version, such as a commit."""
    created: datetime

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
        """sha256, in hex, of the sorted list of paths, sizes and digests."""
        files = sorted((file.model_dump() for file in self.files), key=lambda file: file["path"])
        return hashlib.sha256(_canonical(files)).hexdigest()

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


def manifest_of(model: str, files: Iterable[File], source: str, revision: str | None, created: datetime) -> Manifest:
    """A new manifest. Raises InvalidManifest when the files can't be a release."""
    try:
        return Manifest(model=model, files=tuple(files), source=source, revision=revision, created=created)
    except ValidationError as error:
        raise InvalidManifest(error.errors(include_url=False, include_input=False)[0]["msg"]) from error


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
