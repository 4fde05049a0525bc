"""What the local stand-in for Google Cloud Storage keeps: objects, and uploads on their way to become some."""

import json
import os
import secrets
import shutil
import threading
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import google_crc32c
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.settings import STORAGE_DIR
from gcp_storage_emulator.storage import Storage, _FileStore

from clusters.launch.gcs_account import Json, Refused

QUANTUM = 2**18
"""Of an unfinished upload, whole multiples of this are kept."""
BLOCK = 2**20


class Files(_FileStore):  # type: ignore[misc]  # the emulator has no types
    """Replaces files instead of writing into them: readers go on with the old one, and a kill leaves no half."""

    def write_bytes(self, rel: str, content: bytes) -> None:
        path = self.path(rel)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)

    def path(self, rel: str) -> Path:
        return Path(self._disk_path(rel))


class Resources(dict[str, Json]):
    """What the API tells of a bucket's objects, by their names; each has a file of its own in `directory`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        kept = (json.loads(path.read_text()) for path in directory.glob("*.json"))
        super().__init__({resource["name"]: resource for resource in kept})

    def __setitem__(self, name: str, resource: Json) -> None:
        _replace(self._path(name), json.dumps(resource).encode())
        super().__setitem__(name, resource)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._directory / f"{_flat(name)}.json"


class Objects(Storage):  # type: ignore[misc]
    """The emulator's storage for objects of any name and size. It knows no threads: hold `lock` around each use."""

    def __init__(self, directory: Path) -> None:
        super().__init__(data_dir=str(directory))
        self._store: Files = Files(use_memory=False, root=directory / STORAGE_DIR)
        self._resources = directory / "resources"
        self.objects: dict[str, dict[str, Json]] = {
            bucket: Resources(self._resources / bucket) for bucket in self.buckets
        }
        self.lock = threading.Lock()

    def create_bucket(self, bucket_name: str, bucket_obj: Json) -> Json:
        self.objects[bucket_name] = Resources(self._resources / bucket_name)
        return dict(super().create_bucket(bucket_name, bucket_obj))

    def path(self, bucket: str, name: str) -> Path:
        return self._store.path(self._object_path(bucket, name))

    def resource(self, bucket: str, name: str) -> Json:
        """What the API tells of an object. Raises Refused."""
        self.check_bucket(bucket)
        try:
            return dict(self.objects[bucket][name])
        except KeyError:
            raise Refused(HTTPStatus.NOT_FOUND, "notFound", f"No such object: {bucket}/{name}") from None

    def check_bucket(self, bucket: str) -> None:
        if bucket not in self.buckets:
            raise Refused(HTTPStatus.NOT_FOUND, "notFound", "The specified bucket does not exist.")

    def check_generation(self, bucket: str, name: str, expected: str | None) -> None:
        """Raises Refused where an object is not of the expected generation; "0" is that of none."""
        current = self.objects.get(bucket, {}).get(name, {"generation": "0"})["generation"]
        if expected not in (None, current):
            message = "At least one of the pre-conditions you specified did not hold."
            raise Refused(HTTPStatus.PRECONDITION_FAILED, "conditionNotMet", message)

    def adopt(self, bucket: str, name: str, content_type: str, file: Path) -> Json:
        """Makes a file the object's content; nothing of it comes to memory. Returns the resource."""
        self.check_bucket(bucket)
        resource = objects._make_object_resource("", bucket, name, content_type, str(file.stat().st_size))
        resource |= {"crc32c": _crc32c(file), "etag": resource["generation"]}
        path = self.path(bucket, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.replace(path)
        self.objects[bucket][name] = resource
        return dict(resource)

    def copy(self, source: Json, bucket: str, name: str) -> Json:
        """Copies the object that `source` describes. Returns the resource."""
        aside = self.path(bucket, secrets.token_hex(8))
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path(source["bucket"], source["name"]), aside)
        return self.adopt(bucket, name, source["contentType"], aside)

    def _object_path(self, bucket_name: str, file_name: str) -> str:
        """Names are flat and of any characters: `a` and `a/b` are two objects, and no file and directory."""
        return f"{bucket_name}/{_flat(file_name)}"

    def _bucket_soft_delete_retention_seconds(self, bucket_name: str) -> int:
        """Not the week that is the default: it would fill the disk with what tests have deleted."""
        return 0

    def _write_config_to_file(self) -> None:
        """Without the objects: with each one the emulator would write of all."""
        self._store.write_bytes(".meta", json.dumps({"buckets": self.buckets}).encode())


@dataclass(frozen=True)
class Session:
    """A resumable upload; `generation` is what its object must have when it ends."""

    bucket: str
    name: str
    content_type: str
    generation: str | None


class Sessions:
    """Resumable uploads, one file each; they outlive the server's process, as Google's outlive any machine."""

    def __init__(self, directory: Path, kept: Objects) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._objects = kept
        self._lock = threading.Lock()

    def begin(self, session: Session) -> str:
        """Returns the upload's id."""
        upload_id = secrets.token_urlsafe(32)
        self._content(upload_id).touch()
        self._write(upload_id, asdict(session))
        return upload_id

    def take(self, upload_id: str, offset: int, blocks: Iterable[bytes]) -> None:
        """Appends what is new of bytes that begin at `offset`; what came before is not looked at. Raises Refused."""
        for block in blocks:
            self.find(upload_id)
            with self._lock, self._content(upload_id).open("r+b") as file:
                kept = file.seek(0, os.SEEK_END)
                if offset > kept:
                    message = (
                        f"Invalid request.  According to the Content-Range header, the upload offset is {offset}"
                        f" byte(s), which exceeds already uploaded size of {kept} byte(s)."
                    )
                    raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "backendError", message)
                file.write(block[kept - offset :])
            offset += len(block)

    def state(self, upload_id: str, size: int | None) -> int | Json:
        """Bytes that are kept, or the object's resource when it is complete, which `size` tells. Raises Refused."""
        with self._lock:
            about = self.find(upload_id)
            if "resource" in about:
                return dict(about["resource"])
            with self._content(upload_id).open("r+b") as file:
                there = file.seek(0, os.SEEK_END)
                if size is None or there < size:
                    return file.truncate(there // QUANTUM * QUANTUM)
            if there > size:
                raise Refused(HTTPStatus.BAD_REQUEST, "invalid", f"{there} bytes are more than {size}")
            return self._finish(upload_id, Session(**about))

    def drop(self, upload_id: str) -> None:
        """Raises Refused when there is no such upload."""
        self.find(upload_id)
        self._about(upload_id).unlink(missing_ok=True)
        self._content(upload_id).unlink(missing_ok=True)

    def find(self, upload_id: str) -> Json:
        try:
            return dict(json.loads(self._about(upload_id).read_text()))
        except FileNotFoundError:
            raise Refused(HTTPStatus.NOT_FOUND, "notFound", "no such upload") from None

    def _finish(self, upload_id: str, session: Session) -> Json:
        with self._objects.lock:
            self._objects.check_generation(session.bucket, session.name, session.generation)
            content = self._content(upload_id)
            resource = self._objects.adopt(session.bucket, session.name, session.content_type, content)
        self._write(upload_id, {"resource": resource})
        return resource

    def _write(self, upload_id: str, about: dict[str, Any]) -> None:
        _replace(self._about(upload_id), json.dumps(about).encode())

    def _about(self, upload_id: str) -> Path:
        return self._directory / f"{_flat(upload_id)}.json"

    def _content(self, upload_id: str) -> Path:
        return self._about(upload_id).with_suffix(".content")


def _flat(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{secrets.token_hex(8)}")
    aside.write_bytes(content)
    aside.replace(path)


def _crc32c(path: Path) -> str:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = google_crc32c.extend(checksum, block)
    return b64encode(checksum.to_bytes(4, "big")).decode()
