"""The load generator's end of a connection."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from bench.router.requests import Target


@dataclass(slots=True)
class Tally:
    """What arrived, over all connections of one measurement."""

    answers: int = 0
    failures: int = 0
    """Answers of another status than 200, and connections lost before the end of one."""
    newlines: int = 0

    @property
    def events(self) -> int:
        """Two newlines end an event, and nothing else contains one, however the bytes were cut on their way."""
        return self.newlines // 2


class Connection(asyncio.Protocol):
    """Keep-alive, one request at a time. Times are `time.perf_counter`'s."""

    def __init__(self, tally: Tally, answered: Callable[["Connection"], None]):
        self.tally = tally
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        """Of the body; 0 until it comes."""
        self.busy = False
        self._answered = answered
        self._closing = False

    @classmethod
    async def open(cls, target: Target, tally: Tally, answered: Callable[["Connection"], None]) -> "Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(tally, answered), target.host, target.port)
        return connection

    def send(self, request: bytes) -> None:
        self.busy = True
        self.first_byte_at = 0.0
        self.sent_at = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        self._closing = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # asyncio's own types say no more
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self.first_byte_at:
            self.first_byte_at = time.perf_counter()
        self.tally.newlines += body.count(b"\n")

    def on_message_complete(self) -> None:
        self.busy = False
        if self._parser.get_status_code() == 200:
            self.tally.answers += 1
        else:
            self.tally.failures += 1
        self._answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.tally.failures += self.busy and not self._closing
