"""Uploads to S3 in parts, which the server keeps until they are complete."""

from collections.abc import Callable, Iterator
from io import BytesIO

from botocore.exceptions import BotoCoreError, ClientError

from weights.errors import StoreError
from weights.manifest import part_bytes
from weights.store import Stored, Unfinished, Upload
from weights.stores.s3_bucket import UNKNOWN, Bucket, code_of

GONE = {"404", "NoSuchKey", "NoSuchUpload"}
"""Ceph misses the key, where others miss the upload."""
IN_MEMORY = "in-memory"

Find = Callable[[str], Stored | None]


def open_upload(bucket: Bucket, find: Find, key: str, size: int, token: str | None) -> Upload:
    """The upload that `token` names, else the newest of the key, else a new one."""
    if size <= part_bytes(size):
        return WholeUpload(bucket, key)
    before = find(key)
    with bucket.translated("upload", key):
        etags = _landed(bucket, key, size, token) if token else None
        if etags is None:
            token = _newest(bucket, key)
            etags = _landed(bucket, key, size, token) if token else None
        if token is None or etags is None:
            token, etags = str(bucket.client.create_multipart_upload(**bucket.at(key))["UploadId"]), {}
    return PartedUpload(bucket, find, key, size, token, etags, before)


class PartedUpload:
    """A multipart upload. `etags` are of the parts that landed, `before` is what lay at the key when it was opened."""

    any_order = True

    def __init__(
        self, bucket: Bucket, find: Find, key: str, size: int, token: str, etags: dict[int, str], before: Stored | None
    ) -> None:
        self._bucket = bucket
        self._find = find
        self._key = key
        self._size = size
        self.token = token
        self._etags = etags
        self._before = before

    def landed(self) -> frozenset[int]:
        return frozenset(self._etags)

    def send(self, number: int, data: bytes) -> None:
        with self._bucket.translated("upload", self._key):
            # In blocks, each with the connect timeout to itself: bytes at once would have five seconds in all.
            answer = self._bucket.client.upload_part(
                **self._bucket.at(self._key), UploadId=self.token, PartNumber=number + 1, Body=BytesIO(data)
            )
        self._etags[number] = answer["ETag"]

    def complete(self) -> None:
        count = -(-self._size // part_bytes(self._size))
        if lacking := count - len(self._etags):
            reason = f"{lacking} of its {count} parts have not landed"
            raise StoreError(self._bucket.url, f"upload {self._key}", reason)
        with self._bucket.translated("upload", self._key):
            try:
                complete(self._bucket, self._key, self.token, self._etags)
            except (BotoCoreError, ClientError):
                # Of an upload that was completed before, one server says that it is gone, another that it fails.
                if not self._appeared():
                    raise

    def abort(self) -> None:
        abort(self._bucket, self._key, self.token)

    def _appeared(self) -> bool:
        """Whether it was completed before: the answer was lost, or another process sends the same object."""
        now = self._find(self._key)
        return now is not None and now.size == self._size and now != self._before


class WholeUpload:
    """An object of one part, which stays in memory until it is complete: what is put is visible at once."""

    any_order = True
    token = IN_MEMORY

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._data: bytes | None = None

    def landed(self) -> frozenset[int]:
        return frozenset() if self._data is None else frozenset({0})

    def send(self, number: int, data: bytes) -> None:
        self._data = data

    def complete(self) -> None:
        if self._data is None:
            raise StoreError(self._bucket.url, f"upload {self._key}", "its part has not landed")
        with self._bucket.translated("upload", self._key):
            self._bucket.client.put_object(**self._bucket.at(self._key), Body=BytesIO(self._data))

    def abort(self) -> None:
        self._data = None


def complete(bucket: Bucket, key: str, token: str, etags: dict[int, str]) -> None:
    """Makes an object of parts, numbered from 0. Raises ClientError."""
    parts = [{"PartNumber": number + 1, "ETag": etag} for number, etag in sorted(etags.items())]
    bucket.client.complete_multipart_upload(**bucket.at(key), UploadId=token, MultipartUpload={"Parts": parts})


def abort(bucket: Bucket, key: str, token: str) -> None:
    """Forgets an upload; nothing happens when it is gone."""
    with bucket.translated("abort the upload of", key):
        try:
            bucket.client.abort_multipart_upload(**bucket.at(key), UploadId=token)
        except ClientError as error:
            if code_of(error) not in GONE:
                raise


def unfinished(bucket: Bucket, prefix: str) -> Iterator[Unfinished]:
    """Every upload of a key with this prefix; none where the server does not list them."""
    pages = bucket.client.get_paginator("list_multipart_uploads")
    with bucket.translated("list uploads"):
        try:
            for page in pages.paginate(Bucket=bucket.name, Prefix=bucket.prefix + prefix):
                for one in page.get("Uploads", ()):
                    yield Unfinished(bucket.relative(one["Key"]), one["UploadId"], one["Initiated"].timestamp())
        except ClientError as error:
            # rclone says NoSuchUpload of a bucket that never had one.
            if code_of(error) not in {*UNKNOWN, "NoSuchUpload"}:
                raise


def _newest(bucket: Bucket, key: str) -> str | None:
    mine = [one for one in unfinished(bucket, key) if one.key == key]
    return max(mine, key=lambda one: one.begun).token if mine else None


def _landed(bucket: Bucket, key: str, size: int, token: str) -> dict[int, str] | None:
    """ETags of the parts that the server keeps, by their number from 0. None when the upload is gone, or when a part
    of it could not be one of an object of this size; nothing else tells what size an upload was begun for."""
    step = part_bytes(size)
    etags = {}
    try:
        for page in bucket.client.get_paginator("list_parts").paginate(**bucket.at(key), UploadId=token):
            for part in page.get("Parts", ()):
                number = part["PartNumber"] - 1
                if part["Size"] != min(step, size - number * step):
                    return None
                etags[number] = part["ETag"]
    except ClientError as error:
        if code_of(error) not in GONE:
            raise
        return None
    return etags
