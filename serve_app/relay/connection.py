"""One HTTP/1.1 connection to a site: bytes out, callbacks in."""

import asyncio
from typing import Protocol, cast

import httptools

Headers = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES = 2**16


class Listener(Protocol):
    """Who hears an answer: its head, its body as it comes, then either `on_end` or `on_lost`."""

    def on_head(self, status: int, headers: Headers) -> None:
        """Names are lower-case."""

    def on_body(self, data: bytes) -> None:
        """Never empty: all that one read brought."""

    def on_end(self) -> None:
        """The answer is whole, and the connection somebody else's."""

    def on_lost(self, reason: str, unseen: bool) -> None:
        """It broke before its end. `unseen`: the connection had idled and not one byte came, so the site most likely
        closed it before the request was there."""


class Home(Protocol):
    """Where idle connections live."""

    def returned(self, connection: "Connection") -> None: ...

    def gone(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """Carries one request at a time."""

    __slots__ = (
        "_answered",
        "_body",
        "_complete",
        "_framed",
        "_head_bytes",
        "_headed",
        "_headers",
        "_home",
        "_keep",
        "_listener",
        "_parser",
        "_paused",
        "_transport",
        "idle_since",
        "on_body",
        "target",
    )

    def __init__(self, target: str, home: Home):
        self.target = target
        self.idle_since = 0.0
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._headers: Headers = []
        self._body: list[bytes] = []
        self.on_body = self._body.append  # the parser's shortest way
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._answered = 0
        self._headed = self._framed = self._complete = self._keep = self._paused = False

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, body: bytes, listener: Listener) -> None:
        """A connection that is gone by now tells the listener so, later."""
        self._listener = listener
        self._head_bytes = 0
        self._headed = self._complete = False
        if self._transport is None or self._transport.is_closing():
            asyncio.get_running_loop().call_soon(self._lose, "connection lost")
        elif len(body) < 2**16:
            self._transport.write(request + body)
        else:
            self._transport.writelines((request, body))

    def listen(self, listener: Listener) -> None:
        """Another one hears the rest."""
        self._listener = listener

    def abandon(self) -> None:
        """Break the answer off, so that the site stops. The listener hears nothing more."""
        self._listener = None
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if not self._paused and self.alive and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self.alive and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # What the network does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._listener is None:
            self.close()  # nobody asked
            return
        if not self._headed:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._body.clear()
            self._break("a malformed answer")
            return
        pieces = self._body
        if pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            if self._listener is not None:
                self._listener.on_body(body)
        if self._complete:
            self._finish()
        elif not self._headed and self._head_bytes > MAX_HEAD_BYTES:
            self._break("an answer whose head has no end")

    def connection_lost(self, error: Exception | None) -> None:
        self._home.gone(self)
        self._transport = None
        if self._headed and not self._framed and error is None:
            self._finish()  # HTTP/1.0's way to end an answer
        else:
            self._lose("connection reset" if isinstance(error, ConnectionError) else "connection lost")

    def _finish(self) -> None:
        listener, self._listener = self._listener, None
        self._answered += 1
        if self._keep and self._transport is not None:
            self.resume()
            self._home.returned(self)
        else:
            self.close()
        if listener is not None:
            listener.on_end()

    def _break(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        self.close()
        if listener is not None:
            listener.on_lost(reason, False)

    def _lose(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_lost(reason, self._answered > 0 and not self._head_bytes)

    # What the parser finds

    def on_message_begin(self) -> None:
        self._headers = []
        self._framed = False
        # More than was asked for: the two ends disagree on where an answer ends.
        self._keep = not self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # others are interim
            self._headed = True
            if self._listener is not None:
                self._listener.on_head(status, self._headers)

    def on_message_complete(self) -> None:
        if self._headed:
            self._complete = True
            self._keep = self._keep and self._parser.should_keep_alive()
