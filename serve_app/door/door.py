"""The client port of one process."""

import asyncio
import socket
from collections.abc import Callable
from email.utils import formatdate

from starlette.types import ASGIApp

from serve_app.door.answer import Answer
from serve_app.door.cold import Cold
from serve_app.door.connection import Connection
from serve_app.door.exchange import Exchange, HotHandler, Request
from serve_app.door.limits import Limits

SWEEP_S = 0.25
"""One timer for all connections, so that a request costs none."""

BACKLOG = 4096


class Door:
    """Accepts connections, and takes each request, once it is whole, to the hot handler or to the ASGI application."""

    def __init__(self, app: ASGIApp, hot: HotHandler, is_hot: Callable[[str, str], bool], limits: Limits):
        """`is_hot` is asked with a request's method and path. The application's lifespan is somebody else's."""
        self.limits = limits
        self.keep_alive_s = limits.keep_alive_s
        self.draining = False
        self.connections: set[Connection] = set()
        self.now = 0.0
        self.date_line = b""
        self._app = app
        self._hot = hot
        self._is_hot = is_hot
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, listening: socket.socket) -> None:
        """Accept from this socket, which stays open when the door closes."""
        self._sweep()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), sock=listening.dup(), backlog=BACKLOG)

    async def drain(
        self, deadline_s: float, may_refuse: Callable[[], bool], *, grace_s: float = 10.0, idle_grace_s: float = 2.0
    ) -> None:
        """Leave without failing a request: go on as before until `may_refuse` (some other process accepts from the
        same socket), for at most `grace_s`; then accept no more, close connections that idle for `idle_grace_s`, and
        say `connection: close` in every answer. Answers that still run after `deadline_s` are broken off."""
        started = asyncio.get_running_loop().time()
        await _until(may_refuse, started + min(grace_s, deadline_s))
        self._stop_accepting()
        self.draining = True
        self.keep_alive_s = idle_grace_s
        for connection in self.connections:
            connection.hurry()
        await _until(lambda: not self.connections, started + deadline_s)
        self._drop_connections()

    def close(self) -> None:
        """At once. Exchanges that run are told that their clients left."""
        self._stop_accepting()
        self._drop_connections()
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def begin(self, request: Request, answer: Answer, transport: asyncio.Transport) -> Exchange:
        """For connections."""
        if self._is_hot(request.method, request.path):
            return self._hot(request, answer)
        cold = Cold(self._app, request, answer, transport)
        self._tasks.add(cold.task)
        cold.task.add_done_callback(self._tasks.discard)
        return cold

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SWEEP_S, self._sweep)
        self.now = loop.time()
        self.date_line = f"date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in [each for each in self.connections if each.deadline <= self.now]:
            connection.expire()

    def _stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    def _drop_connections(self) -> None:
        for connection in self.connections:
            connection.transport.abort()


async def _until(condition: Callable[[], bool], deadline: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        if condition():
            return
        await asyncio.sleep(SWEEP_S)
