"""A local stand-in for Google Cloud Storage: `python -m clusters.launch.gcs_server --help`.

Small things are gcp-storage-emulator's. In front of it stands what that one lacks and clients rely on: OAuth2 tokens
for service accounts (RFC 7523), 401 and 403 without them, generations as preconditions, pages of listings, ranges,
resumable uploads that keep what arrived, rewrites in steps, and threads.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import formatdate
from http import HTTPMethod, HTTPStatus
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler, Router

from clusters.launch.gcs_account import Account, Accounts, Json, Refused
from clusters.launch.gcs_objects import BLOCK, Objects, Session, Sessions

HOST = "127.0.0.1"
OAUTH_PATH = "/token"
APIS = ("/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/", "/batch/storage/v1")
LISTING = re.compile("/storage/v1/b/[^/]+/o")
UPLOAD = re.compile("/upload/storage/v1/b/[^/]+/o")
REWRITE = re.compile("/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)")
RANGE = re.compile("bytes=([0-9]+)-([0-9]*)")
CONTENT_RANGE = re.compile(r"bytes (?:([0-9]+)-[0-9]+|\*)/([0-9]+|\*)")
MAX_BODY = 2**27
MAX_METADATA = 2**16
MAX_PAGE = 100
"""Objects per answer. Google's limit is 1,000, and it may answer with fewer: clients must follow `nextPageToken`."""
REWRITTEN = 2**22
"""Bytes per answer to a rewrite. Google says only that large ones may take several: clients must follow the token."""
RESUME_INCOMPLETE = 308
CANCELLED = 499

Query = Mapping[str, str]


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, port: int, kept: Objects, sessions: Sessions, accounts: Accounts) -> None:
        super().__init__((HOST, port), Handler)
        self.objects = kept
        self.sessions = sessions
        self.accounts = accounts

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that leaves is no error of the server's."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, address)


class Handler(RequestHandler):  # type: ignore[misc]  # the emulator has no types
    """One connection: answers what the emulator can't, and hands it the rest once credentials and conditions hold."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: Server
    rfile: BinaryIO
    wfile: BinaryIO

    def __init__(self, connection: Any, address: Any, server: Server) -> None:
        self._unread = 0
        """Bytes of the request's body."""
        super().__init__(server.objects, connection, address, server)

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        url = urlsplit(self.path)
        try:
            self._unread = self._length()
            if url.path == OAUTH_PATH:
                self._grant(dict(parse_qsl(self._body().decode(errors="replace"))))
            else:
                self._authorize()
                self._dispatch(url, dict(parse_qsl(url.query)))
        except Refused as refused:
            for _ in self._blocks():  # or the answer would meet a client that still sends
                pass
            self.wfile.write(_json(refused.body, refused.status))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _grant(self, form: Query) -> None:
        try:
            answer = _json(self.server.accounts.grant(form, time.time()))
        except Refused as refused:  # which OAuth2 says in its own shape
            answer = _json({"error": refused.reason, "error_description": str(refused)}, refused.status)
        self.wfile.write(answer)

    def _authorize(self) -> None:
        account = self.server.accounts.of(self.headers.get("Authorization", ""), time.time())
        if self.command != HTTPMethod.GET and not account.may_write:
            message = f"{account.email} does not have permission to change the bucket or its objects."
            raise Refused(HTTPStatus.FORBIDDEN, "forbidden", message)

    def _dispatch(self, url: SplitResult, query: Query) -> None:
        if not url.path.startswith(APIS):
            raise Refused(HTTPStatus.NOT_FOUND, "notFound", "no such API")
        if UPLOAD.fullmatch(url.path) and "upload_id" in query:
            self._resume(query["upload_id"])
        elif UPLOAD.fullmatch(url.path) and query.get("uploadType") == "resumable":
            self._begin(url, query)
        elif self.command == HTTPMethod.GET and query.get("alt") == "media":
            self._download(_bucket(url), _object(url, query, b""))
        else:
            self._store(url, query, self._body())

    def _begin(self, url: SplitResult, query: Query) -> None:
        bucket, name = _bucket(url), _object(url, query, self._body())
        generation = query.get("ifGenerationMatch")
        with self.server.objects.lock:
            self.server.objects.check_bucket(bucket)
            self.server.objects.check_generation(bucket, name, generation)
        content_type = self.headers.get("X-Upload-Content-Type", "application/octet-stream")
        upload_id = self.server.sessions.begin(Session(bucket, name, content_type, generation))
        location = f"http://{self.headers['Host']}{self.path}&upload_id={upload_id}"
        self.wfile.write(_head(HTTPStatus.OK, {"Location": location, "Content-Length": "0"}))

    def _resume(self, upload_id: str) -> None:
        """Takes a chunk, says how much is kept, or forgets the upload."""
        if self.command == HTTPMethod.DELETE:
            self.server.sessions.drop(upload_id)
            self.wfile.write(_head(CANCELLED, {"Content-Length": "0"}))
        else:
            self.wfile.write(self._resumed(upload_id))

    def _resumed(self, upload_id: str) -> bytes:
        match = CONTENT_RANGE.fullmatch(self.headers.get("Content-Range", ""))
        if match is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid", "a Content-Range is needed")
        offset, size = match.groups()
        if offset is not None:
            self.server.sessions.take(upload_id, int(offset), self._blocks())
        state = self.server.sessions.state(upload_id, None if size == "*" else int(size))
        if isinstance(state, dict):
            return _json(state)
        kept = {"Range": f"bytes=0-{state - 1}"} if state else {}
        return _head(RESUME_INCOMPLETE, {**kept, "Content-Length": "0"})

    def _download(self, bucket: str, name: str) -> None:
        with self.server.objects.lock:
            resource = self.server.objects.resource(bucket, name)
            file = self.server.objects.path(bucket, name).open("rb")
        with file:
            size = int(resource["size"])
            match = RANGE.fullmatch(self.headers.get("Range", ""))
            start = int(match[1]) if match else 0
            end = min(size, int(match[2]) + 1) if match and match[2] else size
            if match and start >= end:
                raise Refused(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "requestedRangeNotSatisfiable", "no such range"
                )
            status = HTTPStatus.PARTIAL_CONTENT if match else HTTPStatus.OK
            ranged = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if match else {}
            headers = {**ranged, "Content-Type": resource["contentType"], "Content-Length": str(end - start)}
            self.wfile.write(_head(status, headers))
            if start < end:
                self.connection.sendfile(file, start, end - start)

    def _store(self, url: SplitResult, query: Query, body: bytes) -> None:
        kept = self.server.objects
        with kept.lock:
            if "ifGenerationMatch" in query:
                kept.check_generation(_bucket(url), _object(url, query, body), query["ifGenerationMatch"])
            if self.command == HTTPMethod.GET and LISTING.fullmatch(url.path):
                answer = _json(self._page(_bucket(url), query))
            elif self.command == HTTPMethod.POST and (match := REWRITE.fullmatch(url.path)):
                answer = _json(self._rewrite([unquote(name) for name in match.groups()], query.get("rewriteToken")))
            elif query.get("uploadType") == "media" and not body:
                answer = _json(self._empty_object(_bucket(url), query["name"]))
            else:
                answer = self._emulated(body)
        self.wfile.write(answer)

    def _page(self, bucket: str, query: Query) -> Json:
        """The emulator lists everything at once, the real one in pages."""
        kept = self.server.objects
        kept.check_bucket(bucket)
        items, prefixes = kept.get_file_list(bucket, query.get("prefix"), query.get("delimiter"))
        items = [item for item in items if item["name"] > query.get("pageToken", "")]
        size = min(int(query.get("maxResults", MAX_PAGE)), MAX_PAGE)
        page = {"kind": "storage#objects", "items": items[:size], "prefixes": prefixes}
        return page | ({"nextPageToken": items[size - 1]["name"]} if len(items) > size else {})

    def _rewrite(self, names: Sequence[str], token: str | None) -> Json:
        """One step of a copy; the token of the next says how far it is, and of which content."""
        from_bucket, from_name, bucket, name = names
        source = self.server.objects.resource(from_bucket, from_name)
        self.server.objects.check_bucket(bucket)
        generation, _, rewritten = (token or f"{source['generation']}-0").partition("-")
        if generation != source["generation"] or not rewritten.isdecimal():
            raise Refused(HTTPStatus.BAD_REQUEST, "invalid", "Invalid rewrite token")
        done = min(int(source["size"]), int(rewritten) + REWRITTEN)
        answer = {"kind": "storage#rewriteResponse", "objectSize": source["size"], "totalBytesRewritten": str(done)}
        if done < int(source["size"]):
            return answer | {"done": False, "rewriteToken": f"{generation}-{done}"}
        return answer | {"done": True, "resource": self.server.objects.copy(source, bucket, name)}

    def _empty_object(self, bucket: str, name: str) -> Json:
        """The emulator takes an empty body for none at all, and fails."""
        kept = self.server.objects
        kept.check_bucket(bucket)
        resource = objects._make_object_resource("", bucket, name, "application/octet-stream", "0")
        kept.create_file(bucket, name, b"", objects._checksums(b"", resource))
        return dict(resource)

    def _emulated(self, body: bytes) -> bytes:
        """The emulator's whole answer; it reads and writes buffers instead of the connection."""
        connection = self.rfile, self.wfile
        self.rfile, self.wfile = BytesIO(body), BytesIO()
        try:
            Router(self).handle(self.command)
            return self.wfile.getvalue()
        finally:
            self.rfile, self.wfile = connection

    def _length(self) -> int:
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "invalid", "a Content-Length is needed")
        return int(self.headers.get("Content-Length", 0))

    def _body(self) -> bytes:
        if self._unread > MAX_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "invalid", f"more than {MAX_BODY:,} bytes")
        return b"".join(self._blocks())

    def _blocks(self) -> Iterator[bytes]:
        """What is unread of the body, as it arrives."""
        while self._unread:
            block = self.rfile.read(min(BLOCK, self._unread))
            if not block:
                raise ConnectionResetError("the body ends early")
            self._unread -= len(block)
            yield block


def _json(content: Json, status: HTTPStatus = HTTPStatus.OK) -> bytes:
    body = json.dumps(content).encode()
    return _head(status, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = (f"HTTP/1.1 {status} -", f"Date: {formatdate(usegmt=True)}", *(f"{k}: {v}" for k, v in headers.items()))
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _bucket(url: SplitResult) -> str:
    """The one that is changed: of a copy, the second that the path names."""
    return unquote(url.path.rpartition("/b/")[2].partition("/")[0])


def _object(url: SplitResult, query: Query, body: bytes) -> str:
    """Named by the path, by the query, or by the metadata that begin a resumable or multipart upload."""
    name = unquote(url.path.rpartition("/o/")[2]) if "/o/" in url.path else query.get("name")
    if name is None:
        text = body[:MAX_METADATA].decode(errors="replace")
        name = json.JSONDecoder().raw_decode(text[text.find("{") :])[0]["name"]
    return str(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps the objects")
    parser.add_argument("--account", type=Path, required=True, help="service-account JSON file that may use the server")
    parser.add_argument("--read-only", type=Path, help="service-account JSON file that may only read")
    parser.add_argument("--bucket", required=True, help="created when it is not there")
    args = parser.parse_args()
    data = args.data.resolve()
    kept = Objects(data)
    if args.bucket not in kept.buckets:
        create_bucket(args.bucket, kept)
    files = [(args.account, True)] + ([(args.read_only, False)] if args.read_only else [])
    accounts = Accounts([Account.of(json.loads(path.read_text()), may_write) for path, may_write in files])
    Server(args.port, kept, Sessions(data / "uploads", kept), accounts).serve_forever()


if __name__ == "__main__":
    main()
