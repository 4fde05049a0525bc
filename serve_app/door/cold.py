"""Routes that are not hot: each request is a call of an ASGI application, in a task."""

import asyncio
import logging
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Scope

from serve_app.door.answer import Answer
from serve_app.door.exchange import Request
from serve_app.errors import Internal

logger = logging.getLogger(__name__)

FRAMING = frozenset((b"connection", b"content-length", b"date", b"transfer-encoding"))


class Cold:
    """An Exchange, and the ASGI server of one request."""

    def __init__(self, app: ASGIApp, request: Request, answer: Answer, transport: asyncio.Transport):
        self._request = request
        self._answer = answer
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._begun = self._whole = self._received = self._client_gone = False
        self._over = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.task = asyncio.create_task(self._run(app, scope_of(request, transport)))

    def client_left(self) -> None:
        self._client_gone = True
        self._over.set()
        self._writable.set()

    def pause(self) -> None:
        self._writable.clear()

    def resume(self) -> None:
        self._writable.set()

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception:
            # An application may give up in any way when its client is gone.
            if not self._client_gone:
                logger.exception("%s %s failed", self._request.method, self._request.path)
        finally:
            if not self._whole:
                self._answer.fail(Internal())

    async def _receive(self) -> Message:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._client_gone:
            raise OSError("the client has left")
        if message["type"] == "http.response.start":
            self._head = message["status"], [(name.lower(), value) for name, value in message.get("headers", ())]
        elif message["type"] == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
            await self._writable.wait()

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self._begun and self._head is not None:
            self._begun = True
            self._start(*self._head, None if more else len(body))
        self._answer.write(body)
        if not more:
            self._whole = True
            self._answer.finish()
            self._over.set()

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None) -> None:
        fields = dict(headers)
        announced = fields.get(b"content-length")
        if fields.get(b"connection", b"").lower() == b"close":
            self._answer.reusable = False
        passing = [header for header in headers if header[0] not in FRAMING]
        self._answer.start(status, passing, int(announced) if announced is not None else length)


def scope_of(request: Request, transport: asyncio.Transport) -> Scope:
    """The request as ASGI describes it."""
    peer = transport.get_extra_info("peername")  # none if it was reset meanwhile
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version,
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": peer[:2] if peer else None,
        "server": transport.get_extra_info("sockname")[:2],
    }
