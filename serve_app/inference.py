"""The inference routes, behind both doors: the client port that this replica owns, and Ray Serve's own HTTP route."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from serve_app.admission import Admission
from serve_app.body import ClientLeft, read_body
from serve_app.door.exchange import Exchange, Request
from serve_app.errors import ApiError
from serve_app.relay.relay import Relay
from serve_app.relay.sink import Sink

HIGH_WATER = 2**18
LOW_WATER = 2**16
"""Bytes that wait for a slow client before its exchange is paused, and at which it goes on."""

RawHeaders = list[tuple[bytes, bytes]]


class Answered:
    """An exchange that was over before it began: the request was refused."""

    def client_left(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Inference:
    """Admits a request and hands it to the relay."""

    def __init__(self, admission: Admission, relay: Relay, max_body_bytes: int):
        self.max_body_bytes = max_body_bytes
        self._admission = admission
        self._relay = relay

    def hot(self, request: Request, sink: Sink) -> Exchange:
        """For the client port."""
        return self.answer(request.path, request.headers, request.body, request.memo, sink)

    def answer(self, path: str, headers: RawHeaders, body: bytes, memo: dict[str, Any], sink: Sink) -> Exchange:
        try:
            call = self._admission.admit(path, headers, body, memo)
        except ApiError as error:
            self._relay.tell(sink, path, error, [])
            return Answered()
        return self._relay.begin(call, sink)


class AsgiInference:
    """The same as a raw ASGI application, for Ray Serve's door."""

    def __init__(self, inference: Inference):
        self._inference = inference

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive, Headers(scope=scope), self._inference.max_body_bytes)
        except ClientLeft:
            return
        sink = AsgiSink(send)
        sink.exchange = self._inference.answer(scope["path"], scope["headers"], body, {}, sink)
        leaving = asyncio.create_task(_left(receive, sink))
        try:
            await sink.pump()
        finally:
            leaving.cancel()
            sink.exchange.client_left()


class AsgiSink:
    """Turns callbacks into ASGI messages. A client that reads slowly pauses its exchange."""

    def __init__(self, send: Send):
        self.exchange: Exchange = Answered()
        self._send = send
        self._messages: deque[Message] = deque()
        self._news = asyncio.Event()
        self._waiting = 0
        self._paused = False
        self._over = False

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None) -> None:
        # Ray Serve names every request before we see it, and puts the name on the response.
        passing = [header for header in headers if header[0] != b"x-request-id"]
        if length is not None:
            passing.append((b"content-length", b"%d" % length))
        self._put({"type": "http.response.start", "status": status, "headers": passing})

    def write(self, data: bytes) -> None:
        self._waiting += len(data)
        self._put({"type": "http.response.body", "body": data, "more_body": True})
        if self._waiting > HIGH_WATER and not self._paused:
            self._paused = True
            self.exchange.pause()

    def finish(self) -> None:
        self._put({"type": "http.response.body", "body": b"", "more_body": False})
        self._over = True

    def abort(self) -> None:
        """The pump ends without a last message, at which every ASGI server breaks the connection off."""
        self._over = True
        self._news.set()

    async def pump(self) -> None:
        """Until the answer is over."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._messages:
                message = self._messages.popleft()
                await self._send(message)
                self._sent(len(message.get("body", b"")))
            if self._over:
                return

    def _sent(self, size: int) -> None:
        self._waiting -= size
        if self._paused and self._waiting < LOW_WATER:
            self._paused = False
            self.exchange.resume()

    def _put(self, message: Message) -> None:
        if not self._over:
            self._messages.append(message)
            self._news.set()


async def _left(receive: Receive, sink: AsgiSink) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    sink.exchange.client_left()
    sink.abort()
