"""One client's connection: requests in, one answer at a time out, and everything that a client may do wrong."""

import asyncio
import fcntl
import logging
import select
import socket
import struct
import termios
from math import inf
from typing import TYPE_CHECKING, cast

from serve_app.door.answer import Answer
from serve_app.door.exchange import Exchange, Request
from serve_app.door.parser import HEAD, NOTHING, RequestParser
from serve_app.errors import ApiError, BodyTooSlow, HeadTooSlow, Internal, TooManyConnections

if TYPE_CHECKING:
    from serve_app.door.door import Door

logger = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MAX_HELD_BYTES = 2**16
"""Read ahead of the answer in progress. Reading goes on as long as possible, since it shows when a client leaves."""

LINGER_S = 1.0
"""How long a client's bytes are swallowed after the last answer: a connection that is closed on unread bytes is reset,
and the client would not see the answer."""

REFUSED_AT_ONCE = 1000
"""Connections beyond the limit that are told so; those beyond these are not."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
INT = struct.Struct("i")


class Connection(asyncio.Protocol):
    """The server's end of it.

    A client that shuts down its sending side after a request still gets an answer that comes at once. Since one that is
    gone looks the same, it is sent an interim `100 Continue`: where nobody is left, the other end's system answers with
    a reset, which the next sweep finds. Within an answer there is nothing to send, and an engine that works for nobody
    is worse than a half-closed client that is left alone: it counts as gone."""

    __slots__ = (
        "_answer",
        "_blind",
        "_ending",
        "_error",
        "_exchange",
        "_half_closed",
        "_held",
        "_parser",
        "_paused",
        "_pumping",
        "_untaken",
        "deadline",
        "door",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, door: "Door"):
        self.door = door
        self.deadline = door.now + door.limits.header_timeout_s
        """When the sweep calls `expire`."""
        self._parser = RequestParser(door.limits)
        self._error: ApiError | None = None  # told after the answers to the requests before
        self._answer: Answer | None = None
        self._exchange: Exchange | None = None
        self._held = b""
        self._blind = False  # nothing is read, so that a client that leaves is not seen
        self._half_closed = False
        self._paused = False
        self._untaken = inf  # bytes, when last looked at
        self._pumping = False
        self._ending = False

    # What the network does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.door.connections.add(self)
        limit = self.door.limits.max_connections
        if len(self.door.connections) > limit + REFUSED_AT_ONCE:
            self.transport.abort()
        elif len(self.door.connections) > limit:
            self._refuse(TooManyConnections(limit))

    def data_received(self, data: bytes) -> None:
        if self._answer is not None or self._paused:
            self._hold(data)
            return
        self._read(data)
        self._pump()

    def eof_received(self) -> bool:
        """Whether the connection stays open for an answer."""
        self._half_closed = self._blind = True
        if self._ending or (self._answer is None and not self._parser.whole and not self._held):
            return False
        if self._answer is not None and self._answer.begun:
            self.transport.abort()
            return False
        self._probe()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.door.connections.discard(self)
        self._parser.close()
        answer, self._answer = self._answer, None
        exchange, self._exchange = self._exchange, None
        if answer is not None:
            answer.lose()
        if exchange is not None:
            exchange.client_left()

    def pause_writing(self) -> None:
        self._paused = True
        self._untaken = self._measure_untaken()
        self._set_deadline()
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self._paused = False
        self._set_deadline()
        if self._exchange is not None:
            self._exchange.resume()
        self._pump()

    # What time does

    def expire(self) -> None:
        """The deadline has passed."""
        if self._paused or self._ending:
            self._check_progress()
        elif self._answer is not None:
            self._check_presence()
        elif self._parser.phase is NOTHING:
            self._end()
        elif self._parser.phase is HEAD:
            self._refuse(HeadTooSlow(self.door.limits.header_timeout_s))
        else:
            self._refuse(BodyTooSlow(self.door.limits.body_timeout_s))

    def hurry(self) -> None:
        """Idle connections are kept for a shorter time from now on."""
        if self._answer is None and self._parser.phase is NOTHING and not self._ending:
            self.deadline = min(self.deadline, self.door.now + self.door.keep_alive_s)

    # What an answer does

    def answered(self, reusable: bool) -> None:
        self._answer = self._exchange = None
        if reusable:
            self._set_deadline()
            self._pump()
        else:
            self._end()

    def break_off(self, *, reset: bool) -> None:
        """End without an answer's end. `reset`: so that even a client that reads to the end of the connection knows."""
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._stop()
        self.transport.close()

    # Requests in order

    def _hold(self, data: bytes) -> None:
        if self._parser.ended:
            return
        self._held += data
        if len(self._held) > MAX_HELD_BYTES:
            self.transport.pause_reading()
            self._blind = True
            self._set_deadline()

    def _read(self, data: bytes) -> None:
        before = self._parser.phase
        try:
            self._parser.feed(data)
        except ApiError as error:
            self._error = error
        if self._parser.phase is not before:
            self._set_deadline()

    def _pump(self) -> None:
        """Begin whatever can begin. An answer that ends within its beginning comes by here again."""
        if self._pumping:
            return
        self._pumping = True
        while self._answer is None and not self._paused and not self._ending:
            if self._parser.whole:
                self._begin(self._parser.whole.pop(0))
            elif self._error is not None:
                self._refuse(self._error)
            elif self._held:
                self._read_held()
            else:
                self._wait_for_more()
                break
        self._pumping = False

    def _begin(self, request: Request) -> None:
        answer = self._answer = Answer(
            self, reusable=request.keep_alive, old=request.version == "1.0", bodiless=request.method == "HEAD"
        )
        self.deadline = inf
        try:
            exchange = self.door.begin(request, answer, self.transport)
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            answer.fail(Internal())
            return
        if self._answer is not answer:
            return
        self._exchange = exchange
        if self._blind:
            self._probe()
        if self._paused:
            exchange.pause()

    def _read_held(self) -> None:
        held, self._held = self._held, b""
        self._read(held)
        if not self._half_closed:
            self._blind = False
            self.transport.resume_reading()

    def _wait_for_more(self) -> None:
        if self._parser.expects_continue:
            self._parser.expects_continue = False
            self.transport.write(CONTINUE)
        elif self._half_closed:
            self._end()

    # Ends

    def _refuse(self, error: ApiError) -> None:
        self._parser.close()
        answer = self._answer = Answer(self)
        answer.fail(error)

    def _end(self) -> None:
        self._stop()
        if self._half_closed:
            self.transport.close()
        else:
            self.transport.write_eof()
            self.transport.resume_reading()

    def _stop(self) -> None:
        self._answer = self._exchange = self._error = None
        self._held = b""
        self._parser.close()
        self._ending = True
        self._untaken = inf
        self._set_deadline()

    # Time

    def _set_deadline(self) -> None:
        now, limits = self.door.now, self.door.limits
        if self._ending:
            self.deadline = now + LINGER_S
        elif self._paused:
            self.deadline = now + limits.write_timeout_s
        elif self._answer is not None:
            self.deadline = now if self._blind else inf
        elif self._parser.phase is NOTHING:
            self.deadline = now + self.door.keep_alive_s
        elif self._parser.phase is HEAD:
            self.deadline = now + limits.header_timeout_s
        else:
            self.deadline = now + limits.body_timeout_s

    def _check_progress(self) -> None:
        untaken = self._measure_untaken()
        if 0 < untaken < self._untaken:
            self._untaken = untaken
            self.deadline = self.door.now + self.door.limits.write_timeout_s
        else:
            self.transport.abort()

    def _measure_untaken(self) -> int:
        """Bytes that the client's system has not confirmed. The kernel's share of them is often the larger one."""
        (queued,) = INT.unpack(fcntl.ioctl(self._fileno(), termios.TIOCOUTQ, bytes(INT.size)))
        return int(queued) + self.transport.get_write_buffer_size()

    def _probe(self) -> None:
        """Make a client that is gone show it."""
        if self._half_closed and self._answer is not None and not self._answer.begun and not self._answer.old:
            self.transport.write(CONTINUE)
        self._set_deadline()

    def _check_presence(self) -> None:
        poll = select.poll()
        poll.register(self._fileno(), 0)  # errors and resets alone
        if poll.poll(0):
            self.transport.abort()
        else:
            self._set_deadline()

    def _fileno(self) -> int:
        fileno: int = self.transport.get_extra_info("socket").fileno()
        return fileno
