"""An answer read by a coroutine instead of callbacks: off the hot path."""

import asyncio
from collections import deque

from serve_app.relay.connection import Connection, Headers
from serve_app.relay.sse import MAX_EVENT_BYTES, end_of_events

HIGH_WATER = 64
"""Reads kept before the connection is paused."""


class Broken(Exception):
    """The answer did not arrive, or not to its end. The message says how, for people."""


class Reading:
    """Listens to one connection."""

    def __init__(self, connection: Connection, timeout_s: float):
        self.status = 0
        self.headers: Headers = []
        self.timeout_s = timeout_s
        self._connection: Connection | None = connection
        self._reads: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._broken = ""

    async def begin(self) -> None:
        """Until there is something to read, or nothing will come. Raises Broken."""
        data = await self.read()
        if data:
            self._reads.appendleft(data)

    async def body(self, limit: int) -> bytes:
        """All of it. Raises Broken."""
        body = b""
        while data := await self.read():
            body += data
            if len(body) > limit:
                raise Broken("an answer beyond all bounds")
        return body

    async def events(self) -> bytes:
        """The next whole events, b"" at the end. Raises Broken, also when the last event is not whole."""
        data = b""
        while more := await self.read():
            data += more
            end = end_of_events(data)
            if end:
                if data[end:]:
                    self._reads.appendleft(data[end:])
                return data[:end]
            if len(data) > MAX_EVENT_BYTES:
                raise Broken("an event beyond all bounds")
        if data:
            raise Broken("it ended within an event")
        return b""

    async def read(self) -> bytes:
        """What came since; b"" at the end. Raises Broken."""
        while not self._reads:
            if self._broken:
                raise Broken(self._broken)
            if self._ended:
                return b""
            self._news.clear()
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._news.wait()
            except TimeoutError as error:
                raise Broken(f"no byte for {self.timeout_s:g} s") from error
        data = b"".join(self._reads)
        self._reads.clear()
        if self._connection is not None:
            self._connection.resume()
        return data

    def close(self) -> None:
        """Break it off, if it has not ended."""
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    # The connection's side

    def on_head(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        self._reads.append(data)
        if len(self._reads) > HIGH_WATER and self._connection is not None:
            self._connection.pause()
        self._news.set()

    def on_end(self) -> None:
        self._connection = None
        self._ended = True
        self._news.set()

    def on_lost(self, reason: str, unseen: bool) -> None:
        self._connection = None
        self._broken = reason
        self._news.set()
