"""Amazon S3 and servers that speak its protocol, by boto3."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
)

from clusters.spec import StoreSpec
from weights.errors import AccessDenied, NotFound, StoreError
from weights.store import CHUNK, Stored

PERMISSIONS = {
    "list objects": "s3:ListBucket",
    "read": "s3:GetObject and s3:ListBucket",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}
DENIED = {
    "401",
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
ATTEMPTS = 4
CONNECTIONS = 64
"""More threads than this wait for each other."""


class S3Store:
    """Credentials: the spec's profile in the files that `environ` names, else boto3's own chain."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str]) -> None:
        url = urlsplit(spec.url)
        self.url = spec.url
        self._bucket = url.netloc
        self._prefix = url.path.strip("/") + "/" if url.path.strip("/") else ""
        with self._translated("open"):
            self._client = _client(spec, environ)
        self._transfer = TransferConfig(multipart_threshold=CHUNK, multipart_chunksize=CHUNK, max_concurrency=4)

    def size(self, key: str) -> int | None:
        with self._translated("read", key):
            try:
                return int(self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)["ContentLength"])
            except ClientError as error:
                if _code(error) not in ABSENT:
                    raise
            # HEAD has no body that would tell a missing object from a missing bucket; a listing does.
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + key, MaxKeys=1)
            return None

    def objects(self, prefix: str) -> Iterator[Stored]:
        with self._translated("list objects"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    yield Stored(item["Key"].removeprefix(self._prefix), item["Size"])

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._translated("read", key):
            for attempt in range(1, ATTEMPTS + 1):
                answer = self._client.get_object(
                    Bucket=self._bucket, Key=self._prefix + key, Range=f"bytes={offset}-{offset + length - 1}"
                )
                try:
                    return bytes(answer["Body"].read())
                except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    # boto3 retries requests, but not the reading of an answer.
                    if attempt == ATTEMPTS:
                        raise
            raise AssertionError("unreachable")

    def write(self, key: str, content: Path | bytes) -> None:
        with self._translated("write", key):
            if isinstance(content, bytes):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content)
            else:
                # By name: from an open file it would read ten parts ahead into memory.
                with create_transfer_manager(self._client, self._transfer) as transfers:
                    transfers.upload(str(content), self._bucket, self._prefix + key).result()

    def delete(self, key: str) -> None:
        with self._translated("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @contextmanager
    def _translated(self, verb: str, key: str = "") -> Iterator[None]:
        operation = f"{verb} {key}".rstrip()
        try:
            yield
        except (NoCredentialsError, ProfileNotFound) as error:
            raise AccessDenied(self.url, operation, str(error), "see `profile` of the site's store") from error
        except (ClientError, BotoCoreError) as error:
            raise self._error(operation, verb, error) from error

    def _error(self, operation: str, verb: str, error: ClientError | BotoCoreError) -> StoreError:
        if not isinstance(error, ClientError):
            return StoreError(self.url, operation, str(error))
        code = _code(error)
        reason = ": ".join(filter(None, (code, error.response.get("Error", {}).get("Message"))))
        if code in DENIED:
            return AccessDenied(self.url, operation, reason, f"needs {PERMISSIONS[verb]} on bucket {self._bucket}")
        if code in ABSENT:
            return NotFound(self.url, operation, reason)
        return StoreError(self.url, operation, reason)


def _client(spec: StoreSpec, environ: Mapping[str, str]) -> Any:
    core = botocore.session.Session(profile=spec.profile)
    for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials_file"), ("AWS_CONFIG_FILE", "config_file")):
        if variable in environ:
            core.set_config_variable(name, environ[variable])
    keys: dict[str, Any] = {}
    if not spec.profile and "AWS_ACCESS_KEY_ID" in environ:
        keys = {
            "aws_access_key_id": environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": environ.get("AWS_SECRET_ACCESS_KEY"),
            "aws_session_token": environ.get("AWS_SESSION_TOKEN"),
        }
    return Session(botocore_session=core).client(
        "s3",
        region_name=spec.region,
        endpoint_url=spec.endpoint,
        config=Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            # Own servers rarely answer to bucket.host, and reject the checksum trailers that boto3 sends by default.
            s3={"addressing_style": "path" if spec.endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **keys,
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
