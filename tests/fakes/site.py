"""A site that speaks the real protocol over loopback, and does what a test tells it to: also all that goes wrong."""

import asyncio
import json
import queue
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

JSON = ("content-type", "application/json")
SSE = ("content-type", "text/event-stream; charset=utf-8")
DONE = b"data: [DONE]\n\n"


class Ended(Exception):
    """The site ends the connection by itself."""


class End(Enum):
    """How a reply ends."""

    WHOLE = "whole"
    CUT = "the connection is closed"
    RESET = "the connection is reset"
    HANG = "nothing more comes, and the connection stays open"


@dataclass(frozen=True)
class Reply:
    """What the site does with one request. Without a status, not even a head is sent."""

    status: int | None = 200
    headers: tuple[tuple[str, str], ...] = (JSON,)
    chunks: Iterable[bytes] = ()
    end: End = End.WHOLE


def error(status: int, *headers: tuple[str, str]) -> Reply:
    """An engine's own error."""
    body = {"error": {"message": f"engine says {status}", "type": "engine", "param": None, "code": status}}
    return Reply(status, (JSON, *headers), (json.dumps(body).encode(),))


def events(*words: str, done: bool = True, end: End = End.WHOLE) -> Reply:
    """A stream of one event per word."""
    chunks = [b"data: " + json.dumps(_chunk(word)).encode() + b"\n\n" for word in words]
    return Reply(200, (SSE,), (*chunks, DONE) if done else tuple(chunks), end)


RESET = Reply(None, end=End.RESET)
HANG = Reply(None, end=End.HANG)


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class FakeSite:
    """One site on its own thread. `plan` says what the next requests get, `otherwise` what all others do."""

    name: str
    models: Sequence[str] = ("chat", "embed")
    token: str = "site-token"
    running: int = 0
    readiness: str = "ready"
    replicas: int = 1
    """That answer; as many are wanted, and one while it starts."""
    held: dict[str, int] = field(default_factory=dict)
    """Requests that the ingress said it holds for this site, by model."""
    otherwise: Reply | None = None
    """None: an answer that fits the route."""
    state_reply: Reply | None = None
    """None: the true state."""
    requests: list[Received] = field(default_factory=list)
    aborted: "queue.Queue[str]" = field(default_factory=queue.Queue)
    """Paths of requests whose client went away before the end."""
    sent: int = 0
    """Bytes of replies that the network took."""
    drained_at: float | None = None
    """When its last streams are to leave, in seconds since the epoch; None: it does not drain."""

    def __post_init__(self) -> None:
        self._plan: deque[Reply] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._port = 0

    def plan(self, *replies: Reply) -> None:
        self._plan.extend(replies)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Listen, on the same port as before when it was stopped."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        """As if every process of the site were killed."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()

    def heal(self) -> None:
        """As new: no plan, no memory, no peculiarity."""
        self._plan.clear()
        self.requests.clear()
        self.aborted = queue.Queue()
        self.sent = self.running = 0
        self.readiness, self.replicas, self.token = "ready", 1, "site-token"
        self.otherwise = self.state_reply = self.drained_at = None
        if not self._server.is_serving():
            self.start()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while (request := await _read_request(reader)) is not None:
                await self._reply(request, reader, writer)
        except (Ended, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _reply(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending = asyncio.create_task(self._send(self._choose(request), writer))
        leaving = asyncio.create_task(reader.read(1))
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done() or isinstance(sending.exception(), ConnectionError):
            self.aborted.put(request.path)
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        sending.result()

    def _choose(self, request: Received) -> Reply:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return error(401)
        if request.path == "/fleet/state":
            self.held = json.loads(request.body)["held"] if request.body else {}
            return self.state_reply or Reply(chunks=(json.dumps(self._state()).encode(),))
        if request.path == "/fleet/drain":
            return self._drain(request)
        self.requests.append(request)
        if self._plan:
            return self._plan.popleft()
        return self.otherwise or self._answer(request)

    async def _send(self, reply: Reply, writer: asyncio.StreamWriter) -> None:
        if reply.status is not None:
            head = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in reply.headers)]
            writer.write("\r\n".join([*head, "transfer-encoding: chunked", "", ""]).encode())
            for chunk in reply.chunks:
                writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                await writer.drain()
                self.sent += len(chunk)
        match reply.end:
            case End.WHOLE:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            case End.CUT:
                writer.close()
                await writer.wait_closed()
                raise Ended
            case End.RESET:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                raise Ended
            case End.HANG:
                await asyncio.Event().wait()

    def _drain(self, request: Received) -> Reply:
        deadline_s = json.loads(request.body)["deadline_s"]
        self.drained_at = None if deadline_s is None else time.time() + deadline_s
        return Reply(chunks=(json.dumps(self._state()).encode(),))

    def _state(self) -> dict[str, Any]:
        now = time.time()
        placement = {
            "release": "0" * 12,
            "readiness": self.readiness,
            "replicas": self.replicas,
            "target_replicas": max(self.replicas, self.readiness == "starting"),
            "capacity": 8,
            "running": self.running,
            "waiting": 0,
        }
        return {
            "site": self.name,
            "at": now,
            "drain_s": None if self.drained_at is None else max(0.0, self.drained_at - now),
            "placements": [{"model": model, **placement} for model in self.models],
        }

    def _answer(self, request: Received) -> Reply:
        fields = json.loads(request.body)
        if fields.get("stream"):
            return events(*f"hello from {self.name}".split())
        if request.path.endswith("/embeddings"):
            body: dict[str, Any] = {"data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
        elif request.path.endswith("/chat/completions"):
            message = {"role": "assistant", "content": f"hello from {self.name}"}
            body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        else:
            body = {"choices": [{"index": 0, "text": f"hello from {self.name}", "finish_reason": "stop"}]}
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        answer = {"id": "a", "object": "answer", "created": 0, "model": fields["model"], "usage": usage, **body}
        # Odd spacing: whoever parses and writes it again is found out.
        return Reply(chunks=(json.dumps(answer, separators=(" , ", " : ")).encode(),))


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = start.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body)


def _chunk(word: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "chat", "choices": [choice]}
