"""Uploads to Google Cloud Storage: sessions that keep what arrived, in order, for a week."""

from urllib.parse import quote

import requests

from weights.errors import StoreError
from weights.manifest import part_bytes
from weights.stores.gcs_bucket import Bucket, Failed

GONE = {404, 410, 499}
IN_MEMORY = "in-memory"


class SessionUpload:
    """The last part stays in memory until `complete`: with its last byte an object appears. So an object of one part
    needs no session. Of the others `kept` bytes are at the server.
    """

    any_order = False

    def __init__(self, bucket: Bucket, key: str, size: int, session: str | None, kept: int) -> None:
        self._bucket = bucket
        self._key = key
        self._size = size
        self._session = session
        self._kept = kept
        self._last: bytes | None = None

    @property
    def token(self) -> str:
        return f"{self._session}#{_subject(self._key, self._size)}" if self._session else IN_MEMORY

    def landed(self) -> frozenset[int]:
        step = part_bytes(self._size)
        last = -(-self._size // step) - 1
        return frozenset(range(self._kept // step)) | (frozenset() if self._last is None else {last})

    def send(self, number: int, data: bytes) -> None:
        start = number * part_bytes(self._size)
        if start + len(data) == self._size:
            self._last = data
        elif self._session is not None:
            self._put(self._session, start, data)

    def complete(self) -> None:
        if self._last is None:
            raise self._error("its last part has not landed")
        if self._session is None:
            with self._bucket.translated("upload", self._key):
                self._bucket.insert(self._key, self._last)
        else:
            self._put(self._session, self._size - len(self._last), self._last)

    def abort(self) -> None:
        self._last = None
        if self._session is not None:
            abort(self._bucket, self._key, self._session)

    def _put(self, session: str, start: int, data: bytes) -> None:
        end = start + len(data)
        if self._kept < start:
            raise self._error(f"the bytes from {start:,} come before those from {self._kept:,}")
        while self._kept < end:
            # It ignores what it has already, so after a lost answer all of it is just sent again.
            about = f"bytes {self._kept}-{end - 1}/{self._size}"
            with self._bucket.translated("upload", self._key):
                try:
                    kept = _kept(_told(self._bucket, session, about, data[self._kept - start :]), self._size)
                except Failed as error:
                    if error.status in GONE:
                        raise self._error("the session is gone; begin anew") from error
                    raise
            if kept <= self._kept:
                raise self._error(f"the server keeps nothing beyond {kept:,} bytes")
            self._kept = kept

    def _error(self, reason: str) -> StoreError:
        return StoreError(self._bucket.url, f"upload {self._key}", reason)


def open_upload(bucket: Bucket, key: str, size: int, token: str | None) -> SessionUpload:
    """The upload that `token` names, else a new one."""
    if size <= part_bytes(size):
        return SessionUpload(bucket, key, size, None, 0)
    with bucket.translated("upload", key):
        session = _session(bucket, key, size, token or "")
        kept = _asked(bucket, session, size) if session else None
        if session is None or kept is None:
            session, kept = _begun(bucket, key, size), 0
    return SessionUpload(bucket, key, size, session, kept)


def abort(bucket: Bucket, key: str, token: str) -> None:
    """Forgets an upload; nothing happens when it is gone."""
    session = token.partition("#")[0]
    if not _is_ours(bucket, session):
        return
    with bucket.translated("abort the upload of", key):
        try:
            bucket.request("DELETE", session)
        except Failed as error:
            if error.status not in GONE:
                raise


def _session(bucket: Bucket, key: str, size: int, token: str) -> str | None:
    """None for a token of something else."""
    session, _, subject = token.partition("#")
    return session if _is_ours(bucket, session) and subject == _subject(key, size) else None


def _is_ours(bucket: Bucket, session: str) -> bool:
    """Our credentials go with each request: to this server, and no other that a token may name."""
    return session.startswith(bucket.uploads + "?")


def _subject(key: str, size: int) -> str:
    """What no session tells of itself."""
    return f"{size}/{quote(key, safe='')}"


def _begun(bucket: Bucket, key: str, size: int) -> str:
    params = {"uploadType": "resumable", "name": bucket.prefix + key}
    headers = {"X-Upload-Content-Type": "application/octet-stream", "X-Upload-Content-Length": str(size)}
    return bucket.request("POST", bucket.uploads, params=params, headers=headers).headers["Location"]


def _asked(bucket: Bucket, session: str, size: int) -> int | None:
    """Bytes that a session keeps; None when it is gone, or has become the object."""
    try:
        kept = _kept(_told(bucket, session, f"bytes */{size}", b""), size)
    except Failed as error:
        if error.status not in GONE:
            raise
        return None
    return kept if kept < size else None


def _told(bucket: Bucket, session: str, about: str, data: bytes) -> requests.Response:
    return bucket.request("PUT", session, headers={"Content-Range": about}, data=data)


def _kept(answer: requests.Response, size: int) -> int:
    """Until it has everything, a server says 308 and how much it keeps, which may be less than was sent."""
    if answer.status_code != 308:
        return size
    return int(answer.headers["Range"].rpartition("-")[2]) + 1 if "Range" in answer.headers else 0
