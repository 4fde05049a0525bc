"""Metadata servers of three providers on loopback. Each refuses what the real one refuses, and is broken on demand."""

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Reply:
    """What the server answers. `drip_s` is the time that it takes for every byte of the body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drip_s: float = 0


@dataclass(frozen=True)
class Asked:
    """A request as it came. Names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class FakeMetadata:
    """What the three have in common: a thread, a clock of their own, and a fault that takes the place of any answer."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.fault: Reply | None = None
        self.clock_ahead_s = 0.0
        """By how much the server's clock is ahead of this machine's."""
        self.tells_time = True
        self.changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def now(self) -> float:
        return time.time() + self.clock_ahead_s

    def take_back(self, in_s: float) -> None:
        """The provider decides to take the machine back in that many seconds."""
        raise NotImplementedError

    def after(self, delay_s: float) -> threading.Timer:
        """Takes the machine back in a while, when `delay_s` is over."""
        timer = threading.Timer(delay_s, self.take_back, (30,))
        timer.start()
        return timer

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def start(self) -> None:
        """Listen, on the same port as before when it was stopped."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class FakeAws(FakeMetadata):
    """EC2's instance metadata service with version 1 switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: set[str] = set()
        self.action: dict[str, str] | None = None

    def take_back(self, in_s: float, action: str = "terminate") -> None:
        at = datetime.fromtimestamp(self.now() + in_s, UTC)
        self.action = {"action": action, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/latest/api/token":
            return self._token(asked)
        if asked.method != "GET":
            return Reply(405)
        if asked.headers.get("x-aws-ec2-metadata-token") not in self.tokens:
            return Reply(401)
        if asked.path == "/latest/meta-data/spot/instance-action" and self.action:
            return Reply(200, json.dumps(self.action).encode())
        return Reply(404)

    def _token(self, asked: Asked) -> Reply:
        lifetime = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if asked.method != "PUT":
            return Reply(405)
        if "x-forwarded-for" in asked.headers:
            return Reply(403)
        if not lifetime.isdigit() or not 1 <= int(lifetime) <= 21600:
            return Reply(400)
        self.tokens.add(token := secrets.token_urlsafe(40))
        return Reply(200, token.encode(), {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": lifetime})


class FakeGcp(FakeMetadata):
    """Compute Engine's metadata server: values with etags, for whose change one can wait."""

    def __init__(self) -> None:
        super().__init__()
        self.values = {"preempted": "FALSE", "maintenance-event": "NONE"}

    def take_back(self, in_s: float) -> None:
        """Says nothing of when: it is `preempted` from now on."""
        self.put("preempted", "TRUE")

    def put(self, key: str, value: str) -> None:
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def answer(self, asked: Asked) -> Reply:
        key = asked.path.removeprefix("/computeMetadata/v1/instance/")
        if asked.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in asked.headers:
            return Reply(403)
        if asked.method != "GET" or key not in self.values:
            return Reply(404, headers={"Metadata-Flavor": "Google"})
        with self.changed:
            if asked.query.get("wait_for_change") == "true":
                known = asked.query.get("last_etag") or self._etag(key)
                timeout_s = float(asked.query.get("timeout_sec", "inf"))
                self.changed.wait_for(lambda: self._etag(key) != known, min(timeout_s, threading.TIMEOUT_MAX))
            headers = {"Metadata-Flavor": "Google", "ETag": self._etag(key), "Content-Type": "application/text"}
            return Reply(200, self.values[key].encode(), headers)

    def _etag(self, key: str) -> str:
        return self.values[key].encode().hex()[:16]


class FakeAzure(FakeMetadata):
    """Azure's instance metadata service of one VM in a scale set of two."""

    NAME = "pool_1"

    def __init__(self) -> None:
        super().__init__()
        self.name = self.NAME
        self.events: list[dict[str, Any]] = []

    def take_back(self, in_s: float, kind: str = "Preempt", vm: str = NAME, status: str = "Scheduled") -> None:
        self.events.append(
            {
                "EventId": secrets.token_hex(16).upper(),
                "EventStatus": status,
                "EventType": kind,
                "ResourceType": "VirtualMachine",
                "Resources": [vm],
                "NotBefore": formatdate(self.now() + in_s, usegmt=True) if status == "Scheduled" else "",
                "Description": "",
                "EventSource": "Platform",
                "DurationInSeconds": -1,
            }
        )

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("metadata") != "true" or "x-forwarded-for" in asked.headers:
            return Reply(400, b'{"error": "Bad request. Required metadata header not specified"}')
        if asked.method != "GET":
            return Reply(405)
        match asked.path, asked.query.get("api-version"):
            case "/metadata/instance/compute/name", "2021-02-01" if asked.query.get("format") == "text":
                return Reply(200, self.name.encode())
            case "/metadata/scheduledevents", "2020-07-01":
                document = {"DocumentIncarnation": len(self.events) + 1, "Events": self.events}
                return Reply(200, json.dumps(document).encode(), {"Content-Type": "application/json"})
        return Reply(400, b'{"error": "Bad request. api-version was not specified in the request"}')


def _handler(fake: FakeMetadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, url.path, query, headers)
            fake.asked.append(asked)
            try:
                self._send(fake.fault or fake.answer(asked))
            except (BrokenPipeError, ConnectionResetError):
                """Whoever asked has left."""
            self.close_connection = True

        do_PUT = do_POST = do_GET  # noqa: N815

        def _send(self, reply: Reply) -> None:
            self.send_response_only(reply.status)
            if fake.tells_time:
                self.send_header("Date", formatdate(fake.now(), usegmt=True))
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if not reply.drip_s:
                self.wfile.write(reply.body)
            for byte in reply.body if reply.drip_s else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(reply.drip_s)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002
            """Nothing."""

    return Handler
