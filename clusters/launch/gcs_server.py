"""A local stand-in for Google Cloud Storage: `python -m clusters.launch.gcs_server --help`.

Storage itself is gcp-storage-emulator's. In front of it stands what that one lacks and clients rely on: OAuth2 tokens
for one service account (RFC 7523), 401 without them, `ifGenerationMatch`, pages of listings, and threads.
"""

import argparse
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

HOST = "127.0.0.1"
OAUTH_PATH = "/token"
GOOGLE_OAUTH = "https://oauth2.googleapis.com/token"
"""google-auth writes this audience into its assertions, whatever the key file's `token_uri`."""
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/devstorage."
TOKEN_LIFETIME_S = 3600
APIS = ("/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/", "/batch/storage/v1")
LISTING = re.compile("/storage/v1/b/[^/]+/o")
MAX_BODY = 2**27
MAX_METADATA = 2**16
MAX_PAGE = 100
"""Objects per answer. Google's limit is 1,000, and it may answer with fewer: clients must follow `nextPageToken`."""

Json = dict[str, Any]
Query = Mapping[str, str]


class Refused(Exception):
    """Ends a request early. `reason` is Google's word for it."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def body(self) -> Json:
        message = str(self)
        errors = [{"domain": "global", "reason": self.reason, "message": message}]
        return {"error": {"code": self.status.value, "message": message, "errors": errors}}


class Account:
    """The one service account of this server, and the bearer tokens that it was given."""

    def __init__(self, key_file: Json) -> None:
        private_key = load_pem_private_key(key_file["private_key"].encode(), password=None)
        self._public_key = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._email: str = key_file["client_email"]
        self._audiences = [key_file["token_uri"], GOOGLE_OAUTH]
        self._expiry: dict[str, float] = {}

    def grant(self, form: Query, now: float) -> Json:
        """A token in return for an assertion that the account's own key signed. Raises Refused."""
        if form.get("grant_type") != GRANT:
            raise Refused(HTTPStatus.BAD_REQUEST, "unsupported_grant_type", "only service accounts")
        try:
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                form.get("assertion", ""), certs=self._public_key, audience=self._audiences
            )
        except (ValueError, GoogleAuthError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid_grant", "Invalid JWT Signature.") from error
        if claims.get("iss") != self._email:
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid_grant", "Invalid grant: account not found")
        if SCOPE not in claims.get("scope", ""):
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid_scope", "no scope of Cloud Storage")
        token = secrets.token_urlsafe(32)
        self._expiry[token] = now + TOKEN_LIFETIME_S
        return {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFETIME_S}

    def check(self, authorization: str, now: float) -> None:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or self._expiry.get(token, 0) < now:
            raise Refused(HTTPStatus.UNAUTHORIZED, "authError", "Invalid Credentials")


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, port: int, storage: Storage, account: Account) -> None:
        super().__init__((HOST, port), Handler)
        self.storage = storage
        self.account = account
        self.storage_lock = threading.Lock()
        """The emulator's storage knows no threads: bodies move in parallel, objects change one at a time."""


class Handler(RequestHandler):  # type: ignore[misc]  # the emulator has no types
    """Lets a request through to the emulator once it is authenticated and its preconditions hold."""

    protocol_version = "HTTP/1.1"
    server: Server
    rfile: BinaryIO
    wfile: BinaryIO

    def __init__(self, connection: Any, address: Any, server: Server) -> None:
        super().__init__(server.storage, connection, address, server)

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        try:
            body = self._body()
            if url.path == OAUTH_PATH:
                answer = self._token(dict(parse_qsl(body.decode(errors="replace"))))
            else:
                self.server.account.check(self.headers.get("Authorization", ""), time.time())
                with self.server.storage_lock:
                    answer = self._stored(url, query, body)
        except Refused as refused:
            answer = self._json(refused.status, refused.body)
        self.wfile.write(answer)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _token(self, form: Query) -> bytes:
        try:
            return self._json(HTTPStatus.OK, self.server.account.grant(form, time.time()))
        except Refused as refused:  # which OAuth2 says in its own shape
            return self._json(refused.status, {"error": refused.reason, "error_description": str(refused)})

    def _stored(self, url: SplitResult, query: Query, body: bytes) -> bytes:
        if not url.path.startswith(APIS):
            raise Refused(HTTPStatus.NOT_FOUND, "notFound", "no such API")
        if "ifGenerationMatch" in query:
            self._check_generation(url, query, body)
        if self.command == "GET" and LISTING.fullmatch(url.path):
            return self._json(HTTPStatus.OK, self._page(_bucket(url), query))
        if query.get("uploadType") == "media" and not body:
            return self._json(HTTPStatus.OK, self._empty_object(_bucket(url), query["name"]))
        return self._emulated(body)

    def _check_generation(self, url: SplitResult, query: Query, body: bytes) -> None:
        there = self.server.storage.objects.get(_bucket(url), {})
        current = there.get(_object(url, query, body), {"generation": "0"})["generation"]
        if query["ifGenerationMatch"] != current:
            message = "At least one of the pre-conditions you specified did not hold."
            raise Refused(HTTPStatus.PRECONDITION_FAILED, "conditionNotMet", message)

    def _page(self, bucket: str, query: Query) -> Json:
        """The emulator lists everything at once, the real one in pages."""
        self._check_bucket(bucket)
        items, prefixes = self.server.storage.get_file_list(bucket, query.get("prefix"), query.get("delimiter"))
        items = [item for item in items if item["name"] > query.get("pageToken", "")]
        size = min(int(query.get("maxResults", MAX_PAGE)), MAX_PAGE)
        page = {"kind": "storage#objects", "items": items[:size], "prefixes": prefixes}
        return page | ({"nextPageToken": items[size - 1]["name"]} if len(items) > size else {})

    def _empty_object(self, bucket: str, name: str) -> Json:
        """The emulator takes an empty body for none at all, and fails."""
        self._check_bucket(bucket)
        resource = objects._make_object_resource(f"http://{HOST}", bucket, name, "application/octet-stream", "0")
        self.server.storage.create_file(bucket, name, b"", objects._checksums(b"", resource))
        return dict(resource)

    def _check_bucket(self, bucket: str) -> None:
        if bucket not in self.server.storage.buckets:
            raise Refused(HTTPStatus.NOT_FOUND, "notFound", "The specified bucket does not exist.")

    def _emulated(self, body: bytes) -> bytes:
        """The emulator's whole answer; it reads and writes buffers instead of the connection."""
        connection = self.rfile, self.wfile
        self.rfile, self.wfile = BytesIO(body), BytesIO()
        try:
            Router(self).handle(self.command)
            return self.wfile.getvalue()
        finally:
            self.rfile, self.wfile = connection

    def _body(self) -> bytes:
        size = int(self.headers.get("Content-Length", 0))
        if size > MAX_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refused(
                HTTPStatus.LENGTH_REQUIRED, "invalid", f"a Content-Length of at most {MAX_BODY:,} bytes is needed"
            )
        return bytes(self.rfile.read(size))

    def _json(self, status: HTTPStatus, content: Json) -> bytes:
        body = json.dumps(content).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _bucket(url: SplitResult) -> str:
    return unquote(url.path.partition("/b/")[2].partition("/")[0])


def _object(url: SplitResult, query: Query, body: bytes) -> str:
    """Named by the path, by the query, or by the metadata that begin a resumable or multipart upload."""
    name = unquote(url.path.partition("/o/")[2]) or query.get("name")
    if name is None:
        text = body[:MAX_METADATA].decode(errors="replace")
        name = json.JSONDecoder().raw_decode(text[text.find("{") :])[0]["name"]
    return str(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps the objects")
    parser.add_argument("--account", type=Path, required=True, help="service-account JSON file that may use the server")
    parser.add_argument("--bucket", required=True, help="created when it is not there")
    args = parser.parse_args()
    storage = Storage(data_dir=str(args.data.resolve()))
    create_bucket(args.bucket, storage)
    Server(args.port, storage, Account(json.loads(args.account.read_text()))).serve_forever()


if __name__ == "__main__":
    main()
