"""A bucket of an S3 server: who opens it, and what its errors mean."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import urllib3.exceptions
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

from clusters.storage import StoreSpec
from weights.errors import AccessDenied, NotFound, StoreError

PERMISSIONS = {
    "find": "s3:GetObject and s3:ListBucket",
    "list objects": "s3:ListBucket",
    "read": "s3:GetObject and s3:ListBucket",
    "write": "s3:PutObject",
    "copy": "s3:GetObject, s3:ListBucket and s3:PutObject",
    "upload": "s3:PutObject, s3:ListMultipartUploadParts and s3:ListBucketMultipartUploads",
    "list uploads": "s3:ListBucketMultipartUploads",
    "abort the upload of": "s3:AbortMultipartUpload",
    "delete": "s3:DeleteObject",
}
APART = timedelta(minutes=5)
"""Further from the server's clock than this, ours is why we are refused: S3 allows 15 minutes."""
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
UNKNOWN = {"405", "501", "MethodNotAllowed", "NotImplemented"}
"""How servers answer to what they never learned."""
BROKEN = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, urllib3.exceptions.HTTPError)
"""An answer that began and did not end. boto3 retries requests, but not the reading of answers."""
ATTEMPTS = 4
CONNECTIONS = 64
"""More threads than this wait for each other."""


@dataclass(frozen=True)
class Bucket:
    """One bucket, or what lies in it below a prefix. Keys are relative to the prefix."""

    url: str
    name: str
    prefix: str
    client: Any

    def at(self, key: str) -> dict[str, str]:
        """How requests name an object."""
        return {"Bucket": self.name, "Key": self.prefix + key}

    def relative(self, key: str) -> str:
        return key.removeprefix(self.prefix)

    @contextmanager
    def translated(self, verb: str, key: str = "") -> Iterator[None]:
        """Whatever boto3 raises becomes a StoreError. `verb` is one of PERMISSIONS."""
        operation = f"{verb} {key}".rstrip()
        try:
            yield
        except (NoCredentialsError, ProfileNotFound) as error:
            raise _no_credentials(self.url, operation, error) from error
        except ClientError as error:
            raise self._error(operation, verb, error) from error
        except (BotoCoreError, urllib3.exceptions.HTTPError) as error:
            raise StoreError(self.url, operation, str(error)) from error

    def _error(self, operation: str, verb: str, error: ClientError) -> StoreError:
        code = code_of(error)
        reason = ": ".join(filter(None, (code, error.response.get("Error", {}).get("Message"))))
        if code in DENIED:
            hint = _clocks_apart(error, time.time()) or f"needs {PERMISSIONS[verb]} on bucket {self.name}"
            return AccessDenied(self.url, operation, reason, hint)
        if code in ABSENT:
            return NotFound(self.url, operation, reason)
        return StoreError(self.url, operation, reason)


def open_bucket(spec: StoreSpec, environ: Mapping[str, str]) -> Bucket:
    """Connects with its first request. Raises AccessDenied when there are no credentials."""
    url = urlsplit(spec.url)
    prefix = url.path.strip("/") + "/" if url.path.strip("/") else ""
    try:
        return Bucket(spec.url, url.netloc, prefix, _client(spec, environ))
    except (NoCredentialsError, ProfileNotFound) as error:
        raise _no_credentials(spec.url, "open", error) from error
    except BotoCoreError as error:
        raise StoreError(spec.url, "open", str(error)) from error


def code_of(error: ClientError) -> str:
    """S3's word for what went wrong, or the HTTP status of an answer without one."""
    return str(error.response.get("Error", {}).get("Code", ""))


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
            s3={
                # Own servers rarely answer to bucket.host.
                "addressing_style": "path" if spec.endpoint else "auto",
                # A sha256 of each part would cost more than sending it, and parts are read back and digested anyway.
                "payload_signing_enabled": False,
            },
            # Own servers reject the checksum trailers that boto3 sends by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **keys,
    )


def _no_credentials(url: str, operation: str, error: Exception) -> AccessDenied:
    return AccessDenied(url, operation, str(error), "see `profile` of the site's store")


def _clocks_apart(error: ClientError, now: float) -> str:
    """Nothing where the clocks agree. Not every server has a word of its own for it, but all say what time it is."""
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date is None:
        return ""
    ahead = timedelta(seconds=round(now - parsedate_to_datetime(date).timestamp()))
    if abs(ahead) < APART:
        return ""
    return f"this machine's clock is {abs(ahead)} {'ahead of' if ahead > timedelta() else 'behind'} the store's: set it"
