"""One answer on its way to the client."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from serve_app.errors import ApiError, error_body

if TYPE_CHECKING:
    from serve_app.door.connection import Connection

PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {status: f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\n".encode() for status in range(100, 1000)}
BODILESS = (204, 304)
LARGE_BYTES = 2**14
"""From here on copying costs more than handing over several pieces."""


class Answer:
    """A Sink that frames what it is given."""

    __slots__ = ("_bodiless", "_chunked", "_connection", "_head", "_left", "begun", "old", "reusable")

    def __init__(self, connection: "Connection", *, reusable: bool = False, old: bool = False, bodiless: bool = False):
        """`old`: the client speaks HTTP/1.0."""
        self._connection: Connection | None = connection
        self.old = old
        self.reusable = reusable
        """Whether the connection may be used again."""
        self._bodiless = bodiless
        self._chunked = False
        self._left: int | None = None
        self._head = b""
        self.begun = False
        """Whether the client has seen some of it."""

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None) -> None:
        connection = self._connection
        if connection is None:
            return
        head = [STATUS_LINES[status], connection.door.date_line]
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
        if status in BODILESS:
            self._bodiless = True
        elif length is not None:
            self._left = length
            head.append(b"content-length: %d\r\n" % length)
        elif self.old:
            self.reusable = False  # its end is the connection's
        else:
            self._chunked = True
            head.append(b"transfer-encoding: chunked\r\n")
        if not self.reusable or connection.door.draining:
            self.reusable = False
            head.append(b"connection: close\r\n")
        elif self.old:
            head.append(b"connection: keep-alive\r\n")
        head.append(b"\r\n")
        self._head = b"".join(head)

    def write(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or self._bodiless or not data:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                return
        head, self._head = self._head, b""
        self.begun = True
        if len(data) >= LARGE_BYTES:
            pieces = (head, b"%x\r\n" % len(data), data, b"\r\n") if self._chunked else (head, data)
            connection.transport.writelines(pieces)
        elif self._chunked:
            connection.transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        else:
            connection.transport.write(head + data if head else data)

    def finish(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._left and not self._bodiless:
            self.abort()
            return
        tail = b"0\r\n\r\n" if self._chunked and not self._bodiless else b""
        if self._head or tail:
            connection.transport.write(self._head + tail)
        self._connection = None
        connection.answered(self.reusable)

    def abort(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # The end of the connection is what would end this answer well, so it has to be a reset.
            ends_by_closing = self.begun and self._left is None and not self._chunked
            connection.break_off(reset=ends_by_closing)

    def fail(self, error: ApiError) -> None:
        """Tell the client of the error; break off what has started."""
        if self._head or self.begun:
            self.abort()
            return
        headers = [(name.encode(), value.encode()) for name, value in error.headers.items() if name != "connection"]
        body = error_body(error)
        self.start(error.status, [*headers, (b"content-type", b"application/json")], len(body))
        self.write(body)
        self.finish()

    def lose(self) -> None:
        """There is no client any more."""
        self._connection = None
