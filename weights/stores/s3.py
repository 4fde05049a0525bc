"""Amazon S3 and servers that speak its protocol, by boto3."""

import random
import time
from collections.abc import Iterator, Mapping

from botocore.exceptions import ClientError

from clusters.storage import StoreSpec
from weights.errors import StoreError
from weights.manifest import part_bytes
from weights.parallel import for_each
from weights.store import PIECE, Stored, Unfinished, Upload
from weights.stores import s3_upload
from weights.stores.conditions import Conditions, holds
from weights.stores.s3_bucket import ABSENT, ATTEMPTS, BROKEN, UNKNOWN, code_of, open_bucket

COPY_BYTES = 5 * 2**30
"""S3 copies no larger object in one request."""
COPY_PART = 2**30
COPIES = 4
"""Parts of one copy at once."""
PAUSE_S = 0.25
UNMET = {"409", "412", "ConditionalRequestConflict", "PreconditionFailed"}


class S3Store:
    """Credentials: the spec's profile in the files that `environ` names, else boto3's own chain."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str]) -> None:
        self.url = spec.url
        self._bucket = open_bucket(spec, environ)
        self._client = self._bucket.client
        self._conditions = Conditions()

    @property
    def conditional(self) -> bool:
        return self._conditions.honoured(self)

    def find(self, key: str) -> Stored | None:
        with self._bucket.translated("find", key):
            try:
                answer = self._client.head_object(**self._bucket.at(key))
            except ClientError as error:
                # HEAD has no body that would tell a missing object from a missing bucket, a wrong key or a wrong
                # clock; a listing has one.
                self._client.list_objects_v2(Bucket=self._bucket.name, Prefix=self._bucket.at(key)["Key"], MaxKeys=1)
                if code_of(error) not in ABSENT:
                    raise
                return None
        return Stored(key, answer["ContentLength"], _version(answer), answer["LastModified"].timestamp())

    def objects(self, prefix: str) -> Iterator[Stored]:
        with self._bucket.translated("list objects"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket.name, Prefix=self._bucket.prefix + prefix):
                for item in page.get("Contents", ()):
                    key, modified = self._bucket.relative(item["Key"]), item["LastModified"].timestamp()
                    yield Stored(key, item["Size"], _version(item), modified)

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        end, broken = offset + length, 0
        with self._bucket.translated("read", key):
            while offset < end:
                answer = self._client.get_object(**self._bucket.at(key), Range=f"bytes={offset}-{end - 1}")
                try:
                    if not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
                        raise StoreError(self.url, f"read {key}", "the server ignores which bytes it is asked for")
                    for piece in answer["Body"].iter_chunks(PIECE):
                        yield piece
                        offset, broken = offset + len(piece), 0
                    return
                except BROKEN:
                    broken += 1
                    if broken == ATTEMPTS:
                        raise
                    time.sleep(random.uniform(0.5, 1) * PAUSE_S * 2**broken)
                finally:
                    answer["Body"].close()

    def write(self, key: str, content: bytes) -> None:
        with self._bucket.translated("write", key):
            self._client.put_object(**self._bucket.at(key), Body=content)

    def write_if(self, key: str, content: bytes, version: str | None) -> bool:
        # Without the quotes that ETags have, as in Amazon's examples: Ceph compares them as they come.
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        with self._bucket.translated("write", key):
            try:
                self._client.put_object(**self._bucket.at(key), Body=content, **condition)
            except ClientError as error:
                if code_of(error) in UNMET:
                    return _was_retried(error) and holds(self, key, content)
                if code_of(error) == "NoSuchKey":
                    return False
                raise
        return True

    def copy(self, source: str, key: str, size: int) -> None:
        with self._bucket.translated("copy", source):
            if size <= COPY_BYTES:
                self._client.copy_object(**self._bucket.at(key), CopySource=self._bucket.at(source))
            elif not self._copy_parts(source, key, size):
                self._copy_through_here(source, key, size)

    def upload(self, key: str, size: int, token: str | None = None) -> Upload:
        return s3_upload.open_upload(self._bucket, self.find, key, size, token)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        return s3_upload.unfinished(self._bucket, prefix)

    def abort(self, unfinished: Unfinished) -> None:
        s3_upload.abort(self._bucket, unfinished.key, unfinished.token)

    def delete(self, key: str) -> None:
        with self._bucket.translated("delete", key):
            self._client.delete_object(**self._bucket.at(key))

    def free(self) -> int | None:
        return None

    def _copy_parts(self, source: str, key: str, size: int) -> bool:
        """False when the server can't copy a part of an object."""
        token = self._client.create_multipart_upload(**self._bucket.at(key))["UploadId"]

        def copy(number: int) -> str | None:
            start, end = number * COPY_PART, min(size, (number + 1) * COPY_PART)
            answer = self._client.upload_part_copy(
                **self._bucket.at(key),
                UploadId=token,
                PartNumber=number + 1,
                CopySource=self._bucket.at(source),
                CopySourceRange=f"bytes={start}-{end - 1}",
            )
            # Servers that never heard of it take the request for an empty part, and are content.
            etag: str | None = answer["CopyPartResult"].get("ETag")
            return etag

        try:
            etags = for_each(copy, range(-(-size // COPY_PART)), COPIES)
            if not all(etags):
                return False
            s3_upload.complete(self._bucket, key, token, {n: etag for n, etag in enumerate(etags) if etag})
        except ClientError as error:
            if code_of(error) not in UNKNOWN:
                raise
            return False
        finally:
            # There is nothing left of it when it was completed.
            s3_upload.abort(self._bucket, key, token)
        return True

    def _copy_through_here(self, source: str, key: str, size: int) -> None:
        """Every byte comes here and goes back, part by part: the price of a server that copies no parts."""
        upload = self.upload(key, size)
        step = part_bytes(size)
        for number in range(-(-size // step)):
            if number not in upload.landed():
                upload.send(number, b"".join(self.read(source, number * step, step)))
        upload.complete()


def _version(answer: Mapping[str, str]) -> str:
    # Some servers quote it in one answer and not in another.
    return answer["ETag"].strip('"')


def _was_retried(error: ClientError) -> bool:
    """Then the condition may have been spoilt by an earlier attempt of the same request, whose answer was lost."""
    return error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
