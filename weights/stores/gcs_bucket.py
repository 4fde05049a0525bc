"""A bucket of Google Cloud Storage: who opens it, how its bytes move, and what its errors mean.

Names go through gcsfs (`gcs_names`: find, list, copy, delete). Bytes go through requests, with the same credentials:
reading, writing, and the sessions of uploads. For gcsfs takes every byte through one thread, hands out no answer before
it is whole, does not tell 308 from 200, and can't write on condition of a generation.
"""

import random
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import google.auth
import requests
from google.auth.credentials import Credentials, with_scopes_if_required
from google.auth.exceptions import GoogleAuthError, OAuthError, RefreshError, TransportError
from google.auth.transport.requests import Request
from requests.adapters import HTTPAdapter

from clusters.storage import StoreSpec
from weights.errors import AccessDenied, NotFound, StoreError

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
CREDENTIALS_HINT = "see `credentials_file` of the site's store"
PERMISSIONS = {
    "find": "storage.objects.list",
    "list objects": "storage.objects.list",
    "read": "storage.objects.get",
    "write": "storage.objects.create and storage.objects.delete",
    "copy": "storage.objects.get, storage.objects.create and storage.objects.delete",
    "upload": "storage.objects.create and storage.objects.delete",
    "abort the upload of": "storage.objects.create",
    "delete": "storage.objects.delete and storage.objects.list",
}
GOOGLE = "https://storage.googleapis.com"
TIMEOUT_S = (5, 60)
"""Until connected, and between two arrivals of bytes."""
CONNECTIONS = 64
"""More threads than this open new ones each time."""
ATTEMPTS = 4
PAUSE_S = 0.25
TRANSIENT = {408, 429, 500, 502, 503, 504}
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, TransportError)
APART = timedelta(minutes=1)


class Failed(Exception):
    """An answer of the server that is none of success; `retried` when it was not the first to this request."""

    def __init__(self, status: int, message: str, retried: bool = False) -> None:
        super().__init__(status, message)
        self.status = status
        self.reason = f"{status} {message}"
        self.retried = retried


class Unanswered(Exception):
    """There was no answer, or none that can be read; as text, why."""


class Bucket:
    """One bucket, or what lies in it below a prefix. Keys are relative to the prefix."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str]) -> None:
        url = urlsplit(spec.url)
        self.url = spec.url
        self.name = url.netloc
        self.prefix = url.path.strip("/") + "/" if url.path.strip("/") else ""
        self.endpoint = (spec.endpoint or GOOGLE).rstrip("/")
        self._path = f"/b/{quote(self.name, safe='')}/o"
        self.credentials = _credentials(spec, environ)
        self._signing_in = _SigningIn()
        self._lock = threading.RLock()
        self._http = requests.Session()
        # Told so, requests doesn't look for passwords in .netrc.
        self._http.auth = self._authorized
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))

    @property
    def uploads(self) -> str:
        """The address where objects are stored."""
        return f"{self.endpoint}/upload/storage/v1{self._path}"

    def at(self, key: str) -> str:
        """The address of an object."""
        return f"{self.endpoint}/storage/v1{self._path}/{quote(self.prefix + key, safe='')}"

    def insert(self, key: str, content: bytes, generation: str | None = None) -> None:
        """Stores an object in one request, if it has this generation, "0" for none. Raises what `request` does."""
        params = {"uploadType": "media", "name": self.prefix + key, "ifGenerationMatch": generation}
        self.request("POST", self.uploads, params=params, data=content)

    def request(
        self,
        method: str,
        address: str,
        params: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes = b"",
        stream: bool = False,
    ) -> requests.Response:
        """An answer below 400; what may be transient is tried again. Raises Failed and BROKEN, among others."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._http.request(
                    method,
                    address,
                    params=params,
                    headers=headers,
                    # In blocks, each with the timeout to itself: bytes at once would have five seconds in all.
                    data=BytesIO(data) if data else None,
                    stream=stream,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                )
            except BROKEN:
                if attempt == ATTEMPTS:
                    raise
            else:
                if answer.status_code < 400:
                    return answer
                answer.close()
                if attempt == ATTEMPTS or not self._is_transient(answer, attempt):
                    raise Failed(answer.status_code, _message(answer), attempt > 1)
            pause(attempt)
        raise AssertionError("unreachable")

    def sign_in(self) -> None:
        """Sees to a token that is valid by this machine's clock. Raises GoogleAuthError."""
        with self._lock:
            if not self.credentials.valid:
                self.credentials.refresh(self._signing_in)  # type: ignore[no-untyped-call]

    def forget_token(self) -> None:
        """The server refuses it, whatever the clock says."""
        with self._lock:
            self.credentials.token = None

    @contextmanager
    def translated(self, verb: str, key: str = "") -> Iterator[None]:
        """Whatever is raised becomes a StoreError. `verb` is one of PERMISSIONS."""
        operation = f"{verb} {key}".rstrip()
        try:
            yield
        except Failed as error:
            raise self._error(operation, verb, error) from error
        except (OAuthError, RefreshError) as error:
            reason = str(error.args[0])
            if error.retryable:
                raise StoreError(self.url, operation, reason) from error
            hint = clock_hint(self._signing_in.date, time.time()) if "iat and exp" in reason else CREDENTIALS_HINT
            raise AccessDenied(self.url, operation, reason, hint) from error
        except (GoogleAuthError, requests.RequestException, Unanswered) as error:
            raise StoreError(self.url, operation, _words(error)) from error

    def _error(self, operation: str, verb: str, error: Failed) -> StoreError:
        if error.status in (401, 403):
            return AccessDenied(self.url, operation, error.reason, f"needs {PERMISSIONS[verb]} on bucket {self.name}")
        if error.status == 404:
            return NotFound(self.url, operation, error.reason)
        return StoreError(self.url, operation, error.reason)

    def _is_transient(self, answer: requests.Response, attempt: int) -> bool:
        if answer.status_code == 401 and attempt == 1:
            self.forget_token()
            return True
        return answer.status_code in TRANSIENT

    def _authorized(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        with self._lock:
            self.sign_in()
            self.credentials.apply(request.headers)  # type: ignore[no-untyped-call]
        return request


def pause(attempt: int) -> None:
    """Before the next attempt, the longer the more there were; never as long as others'."""
    time.sleep(random.uniform(0.5, 1) * PAUSE_S * 2**attempt)


def clock_hint(date: str | None, now: float) -> str:
    """What to do where the server does not believe our clock; `date` is the server's own, as HTTP writes it."""
    ahead = timedelta(seconds=round(now - parsedate_to_datetime(date).timestamp())) if date else timedelta()
    if abs(ahead) < APART:
        return "set this machine's clock"
    return (
        f"this machine's clock is {abs(ahead)} {'ahead of' if ahead > timedelta() else 'behind'} the server's: set it"
    )


class _SigningIn(Request):
    """How google-auth asks for tokens; remembers what time it was there."""

    date: str | None = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        answer = super().__call__(*arguments, **options)  # type: ignore[no-untyped-call]
        self.date = answer.headers.get("Date")
        return answer


def _credentials(spec: StoreSpec, environ: Mapping[str, str]) -> Credentials:
    path = spec.credentials_file or environ.get(KEY_FILE)
    try:
        if path is None:
            return google.auth.default(scopes=[SCOPE])[0]
        with warnings.catch_warnings():
            # Of files that come from strangers; this one is the operator's own.
            warnings.simplefilter("ignore", DeprecationWarning)
            credentials, _ = google.auth.load_credentials_from_file(  # type: ignore[no-untyped-call]
                str(Path(path).expanduser())
            )
    except (OSError, ValueError, GoogleAuthError) as error:
        raise AccessDenied(spec.url, "open", str(error), CREDENTIALS_HINT) from error
    # A user's have the scopes that the user gave.
    return cast(Credentials, with_scopes_if_required(credentials, [SCOPE]))  # type: ignore[no-untyped-call]


def _message(answer: requests.Response) -> str:
    """Google's own words, else those of HTTP."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return answer.reason or ""


def _words(error: BaseException) -> str:
    """Those of the innermost: the outer ones name the address, which of an upload is as good as a key."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return str(getattr(error, "reason", None) or error) or type(error).__name__
