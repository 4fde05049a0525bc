"""Google Cloud Storage, and servers that speak its JSON API."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from clusters.storage import StoreSpec
from weights.errors import StoreError
from weights.store import PIECE, Stored, Unfinished, Upload
from weights.stores import gcs_upload
from weights.stores.conditions import Conditions, holds
from weights.stores.gcs_bucket import ATTEMPTS, BROKEN, Bucket, Failed, pause
from weights.stores.gcs_names import Names

PAGE = 1000


class GcsStore:
    """Credentials: the spec's file (of a service account, a user, or a workload identity), else the one that `environ`
    names, else Google's own chain, which reads the process's environment.
    """

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str]) -> None:
        self.url = spec.url
        self._bucket = Bucket(spec, environ)
        self._names = Names(self._bucket)
        self._conditions = Conditions()

    @property
    def conditional(self) -> bool:
        return self._conditions.honoured(self)

    def find(self, key: str) -> Stored | None:
        # Asking for the object itself answers 404 for a missing bucket too. A listing is in the order of names.
        with self._bucket.translated("find", key):
            page = self._names.page(key, None, 1)
        return next((stored for stored in self._stored(page) if stored.key == key), None)

    def objects(self, prefix: str) -> Iterator[Stored]:
        token = None
        while True:
            with self._bucket.translated("list objects"):
                page = self._names.page(prefix, token, PAGE)
            yield from self._stored(page)
            token = page.get("nextPageToken")
            if token is None:
                return

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        end, broken = offset + length, 0
        with self._bucket.translated("read", key):
            while offset < end:
                # Compressed it would have another length than was asked for.
                headers = {"Range": f"bytes={offset}-{end - 1}", "Accept-Encoding": "identity"}
                answer = self._bucket.request("GET", self._bucket.at(key), {"alt": "media"}, headers, stream=True)
                try:
                    with answer:
                        if not answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                            raise StoreError(self.url, f"read {key}", "the server ignores which bytes it is asked for")
                        for piece in answer.iter_content(PIECE):
                            yield piece
                            offset, broken = offset + len(piece), 0
                        return
                except BROKEN:
                    broken += 1
                    if broken == ATTEMPTS:
                        raise
                    pause(broken)

    def write(self, key: str, content: bytes) -> None:
        with self._bucket.translated("write", key):
            self._bucket.insert(key, content)

    def write_if(self, key: str, content: bytes, version: str | None) -> bool:
        with self._bucket.translated("write", key):
            try:
                self._bucket.insert(key, content, version or "0")
            except Failed as error:
                if error.status != 412:
                    raise
                # An earlier attempt of the same request, whose answer was lost, may be what spoilt the condition.
                return error.retried and holds(self, key, content)
        return True

    def copy(self, source: str, key: str, size: int) -> None:
        with self._bucket.translated("copy", source):
            self._names.copy(source, key)

    def upload(self, key: str, size: int, token: str | None = None) -> Upload:
        return gcs_upload.open_upload(self._bucket, key, size, token)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """None: sessions can't be listed. They expire after a week and cost nothing until then."""
        return iter(())

    def abort(self, unfinished: Unfinished) -> None:
        gcs_upload.abort(self._bucket, unfinished.key, unfinished.token)

    def delete(self, key: str) -> None:
        with self._bucket.translated("delete", key):
            try:
                self._names.delete(key)
            except Failed as error:
                if error.status != 404:
                    raise
                self._names.page(key, None, 1)  # which fails when it is the bucket that is not there

    def free(self) -> int | None:
        return None

    def _stored(self, page: Mapping[str, Any]) -> Iterator[Stored]:
        for item in page.get("items", ()):
            key, modified = item["name"].removeprefix(self._bucket.prefix), datetime.fromisoformat(item["updated"])
            yield Stored(key, int(item["size"]), item["generation"], modified.timestamp())
