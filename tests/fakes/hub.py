"""A server that speaks as much of the Hugging Face hub's API as reading a model takes, and misbehaves when asked."""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = "org/model"
COMMIT = "c0ffee" * 6 + "abcd"
TOKEN = "hf_of-somebody-who-may"
SIGNATURE = "signed-so-whoever-knows-this-may-read"
CHUNK = 2**16


@dataclass
class Hub:
    """One repository; its large files lie behind a redirect to a CDN, another server that must not see the token."""

    files: Mapping[str, bytes]
    large: frozenset[str] = frozenset()
    commit: str = COMMIT
    stated: dict[str, str] = field(default_factory=dict)
    """SHA-256 that the hub states of a file instead of the true one."""
    gated: bool = False
    """Whether TOKEN is needed."""
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes each of the next answers with a file breaks off."""
    unavailable: dict[str, list[int]] = field(default_factory=dict)
    """Statuses of the next answers to requests for a file."""
    ranges: bool = True
    served: list[tuple[str, int, int]] = field(default_factory=list)
    """Path, offset and bytes sent of every answer with a file."""
    cdn_saw: list[str | None] = field(default_factory=list)
    """The CDN's requests' authorization."""
    on_sent: Callable[[int], None] = lambda size: None
    endpoint: str = ""
    cdn: str = ""

    def sent(self, path: str | None = None) -> int:
        return sum(size for name, _, size in self.served if path in (None, name))

    @property
    def environ(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": TOKEN}


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    with _serving(_hub_handler(hub)) as hub.endpoint, _serving(_cdn_handler(hub)) as hub.cdn:
        yield hub


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no error here."""
        if not isinstance(sys.exception(), ConnectionError):
            raise


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"X-Error-Code": code, "X-Error-Message": f"{code}, says the hub"})

    def send_file(self, path: str) -> None:
        if statuses := self.hub.unavailable.get(path):
            self.answer(statuses.pop(0), {})
            return
        content = self.hub.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.hub.ranges else None
        start, end = (int(asked[1]), min(int(asked[2]) + 1, len(content))) if asked else (0, len(content))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        cuts = self.hub.cut_after.get(path)
        self._send_body(path, content, start, min(end, start + cuts.pop(0)) if cuts else end)
        self.close_connection = bool(cuts) or cuts == []

    def _send_body(self, path: str, content: bytes, start: int, end: int) -> None:
        at = start
        try:
            while at < end:
                at += self.wfile.write(content[at : min(at + CHUNK, end)])
                self.hub.on_sent(CHUNK)
        except OSError:  # the client was killed
            self.close_connection = True
        self.hub.served.append((path, start, at - start))


def _hub_handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class HubHandler(_Handler):
        hub = served

        def do_GET(self) -> None:
            if self.hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refuse(401, "GatedRepo")
                return
            path = unquote(urlsplit(self.path).path)
            if info := re.fullmatch(r"/api/models/(\w+/\w+)(/revision/(.+))?", path):
                self.tell(info[1], info[3] or "main")
            elif file := re.fullmatch(rf"/{REPO}/resolve/{self.hub.commit}/(.+)", path):
                self.resolve(file[1])
            else:
                self.refuse(404, "EntryNotFound")

        def tell(self, repo: str, revision: str) -> None:
            if repo != REPO:
                self.refuse(401, "RepoNotFound")
            elif revision not in ("main", self.hub.commit):
                self.refuse(404, "RevisionNotFound")
            else:
                siblings = [self.sibling(path) for path in self.hub.files]
                body = json.dumps({"id": REPO, "sha": self.hub.commit, "siblings": siblings}).encode()
                self.answer(200, {"Content-Type": "application/json"}, body)

        def sibling(self, path: str) -> dict[str, object]:
            content = self.hub.files[path]
            told: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": "0" * 40}
            if path in self.hub.large:
                sha256 = self.hub.stated.get(path) or hashlib.sha256(content).hexdigest()
                told["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 130}
            return told

        def resolve(self, path: str) -> None:
            if path not in self.hub.files:
                self.refuse(404, "EntryNotFound")
            elif path in self.hub.large:
                self.answer(302, {"Location": f"{self.hub.cdn}/{path}?signature={SIGNATURE}"})
            else:
                self.send_file(path)

    return HubHandler


def _cdn_handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class CdnHandler(_Handler):
        hub = served

        def do_GET(self) -> None:
            self.hub.cdn_saw.append(self.headers.get("Authorization"))
            url = urlsplit(self.path)
            if url.query == f"signature={SIGNATURE}":
                self.send_file(unquote(url.path.removeprefix("/")))
            else:
                self.answer(403, {})

    return CdnHandler
