"""Google Cloud Storage, by gcsfs."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import requests
from fsspec.exceptions import FSTimeoutError
from google.auth import default as application_default
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from clusters.spec import StoreSpec
from weights.errors import AccessDenied, NotFound, StoreError
from weights.store import CHUNK, Stored

# Its experimental half asks Google's own servers for each bucket's layout: a minute of silence at any other server.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import gcsfs
from gcsfs.core import UnclosableBytesIO
from gcsfs.retry import HttpError, NonRetryableError

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
PERMISSIONS = {
    "list objects": "storage.objects.list",
    "read": "storage.objects.get",
    "write": "storage.objects.create and storage.objects.delete",
    "delete": "storage.objects.delete",
}
GOOGLE = "https://storage.googleapis.com"
PAGE = 1000
REQUEST_TIMEOUT_S = 60
TOKEN_ATTEMPTS = 3
CREDENTIALS_HINT = "see `credentials_file` of the site's store"


class GcsStore:
    """Credentials: the spec's service-account file, else Google's own chain, which reads the process's environment."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str]) -> None:
        url = urlsplit(spec.url)
        self.url = spec.url
        self._bucket = url.netloc
        self._prefix = url.path.strip("/") + "/" if url.path.strip("/") else ""
        self._endpoint = (spec.endpoint or GOOGLE).rstrip("/")
        # gcsfs reports what it retries through logging, with tracebacks; whatever is final is raised as well.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        self._credentials = _credentials(spec)
        self._refreshing = threading.Lock()
        self._files = gcsfs.GCSFileSystem(
            token=self._credentials,
            endpoint_url=self._endpoint,
            requests_timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=REQUEST_TIMEOUT_S),
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def size(self, key: str) -> int | None:
        # Asking for the object itself answers 404 for a missing bucket too.
        page = self._page("read", key, None, 1)
        return next((item.size for item in self._stored(page) if item.key == key), None)

    def objects(self, prefix: str) -> Iterator[Stored]:
        token = None
        while True:
            page = self._page("list objects", prefix, token, PAGE)
            yield from self._stored(page)
            token = page.get("nextPageToken")
            if token is None:
                return

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._translated("read", key):
            return bytes(self._files.cat_file(self._path(key), start=offset, end=offset + length))

    def write(self, key: str, content: Path | bytes) -> None:
        with self._translated("write", key):
            if isinstance(content, Path) and content.stat().st_size > CHUNK:
                self._write_large(key, content)
            else:
                self._write_small(key, content if isinstance(content, bytes) else content.read_bytes())

    def delete(self, key: str) -> None:
        with self._translated("delete", key):
            try:
                self._files.call("DELETE", "b/{}/o/{}", self._bucket, self._prefix + key)
            except FileNotFoundError:
                self._page("delete", key, None, 1)

    def _write_small(self, key: str, content: bytes) -> None:
        """gcsfs would frame it as multipart by bare line feeds, which eats a final carriage return of the content."""
        self._upload("media", key, content)

    def _write_large(self, key: str, path: Path) -> None:
        """In one session of as many requests as there are chunks; the object appears with the last."""
        size, sent = path.stat().st_size, 0
        session = self._upload("resumable", key, b"")["Location"]
        with path.open("rb") as file:
            while sent < size:
                file.seek(sent)
                piece = file.read(CHUNK)
                end = sent + len(piece)
                headers = {"Content-Range": f"bytes {sent}-{end - 1}/{size}"}
                answer, _ = self._files.call("PUT", session, headers=headers, data=UnclosableBytesIO(piece))
                # Until it has everything, the server says how much it kept, which may be less than was sent.
                kept = int(answer["Range"].rpartition("-")[2]) + 1 if "Range" in answer else end
                if kept <= sent:
                    raise StoreError(self.url, f"write {key}", f"the server keeps nothing beyond {sent:,} bytes")
                sent = kept

    def _upload(self, kind: str, key: str, content: bytes) -> Mapping[str, str]:
        answer: Mapping[str, str]
        answer, _ = self._files.call(
            "POST",
            f"{self._endpoint}/upload/storage/v1/b/{quote(self._bucket, safe='')}/o",
            uploadType=kind,
            name=self._prefix + key,
            headers={"Content-Type": "application/octet-stream"},
            data=UnclosableBytesIO(content),
        )
        return answer

    def _page(self, verb: str, prefix: str, token: str | None, size: int) -> Mapping[str, Any]:
        """Objects in the order of their names; a missing bucket, and nothing else, is NotFound."""
        query = {"prefix": self._prefix + prefix, "pageToken": token, "maxResults": size}
        with self._translated(verb, prefix):
            page: Mapping[str, Any] = self._files.call("GET", "b/{}/o", self._bucket, json_out=True, **query)
            return page

    def _stored(self, page: Mapping[str, Any]) -> Iterator[Stored]:
        return (Stored(item["name"].removeprefix(self._prefix), int(item["size"])) for item in page.get("items", ()))

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"

    @contextmanager
    def _translated(self, verb: str, key: str = "") -> Iterator[None]:
        operation = f"{verb} {key}".rstrip()
        try:
            self._refresh_token()
            yield
        except RefreshError as error:
            raise AccessDenied(self.url, operation, str(error.args[0]), CREDENTIALS_HINT) from error
        except FileNotFoundError as error:
            raise NotFound(self.url, operation, "no such bucket or object") from error
        except HttpError as error:
            if error.code == 401:
                raise self._denied(verb, operation, "401 " + str(error.message)) from error
            raise StoreError(self.url, operation, str(error.message)) from error
        except OSError as error:
            if str(error).startswith("Forbidden"):  # how gcsfs raises 403
                raise self._denied(verb, operation, "403 " + str(error).partition("\n")[2]) from error
            raise StoreError(self.url, operation, str(error) or type(error).__name__) from error
        except (GoogleAuthError, NonRetryableError, FSTimeoutError, aiohttp.ClientError, ValueError) as error:
            raise StoreError(self.url, operation, str(error) or type(error).__name__) from error

    def _denied(self, verb: str, operation: str, reason: str) -> AccessDenied:
        return AccessDenied(self.url, operation, reason, f"needs {PERMISSIONS[verb]} on bucket {self._bucket}")

    def _refresh_token(self) -> None:
        """gcsfs would retry a refused key for half a minute."""
        with self._refreshing:
            for attempt in range(1, TOKEN_ATTEMPTS + 1):
                if self._credentials.valid:
                    return
                try:
                    with requests.Session() as session:
                        self._credentials.refresh(Request(session))  # type: ignore[no-untyped-call]
                except TransportError:
                    if attempt == TOKEN_ATTEMPTS:
                        raise


def _credentials(spec: StoreSpec) -> Credentials:
    path = spec.credentials_file
    try:
        if path is None:
            return application_default(scopes=[SCOPE])[0]
        return service_account.Credentials.from_service_account_file(  # type: ignore[no-any-return, no-untyped-call]
            str(Path(path).expanduser()), scopes=[SCOPE]
        )
    except (OSError, ValueError, DefaultCredentialsError) as error:
        raise AccessDenied(spec.url, "open", str(error), CREDENTIALS_HINT) from error
