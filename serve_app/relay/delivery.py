"""Passing an answer on to the client that is no stream; and what that has in common with streams."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from serve_app.metering.record import Outcome
from serve_app.relay import translation
from serve_app.relay.attempt import Attempt, Failed
from serve_app.relay.connection import Headers
from serve_app.relay.headers import value_of
from serve_app.relay.hosted.anthropic import Untranslatable

if TYPE_CHECKING:
    from serve_app.relay.exchange import Exchange

WHOLE_BYTES = 2**18
"""An answer that is no stream is held back up to this size: one that is cut can then be had from another site."""
MAX_TRANSLATED_BYTES = 2**24
"""One that must be translated is held back whole, and a larger one is refused."""


class Delivery(Protocol):
    """Listens to the connection that won."""

    attempt: Attempt
    size: int

    def on_head(self, status: int, headers: Headers) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_lost(self, reason: str, unseen: bool) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def check(self, now: float) -> None: ...
    def stop(self) -> None: ...


def is_event_stream(headers: Headers) -> bool:
    return (value_of(headers, b"content-type") or b"").startswith(b"text/event-stream")


class Listening(ABC):
    """What the two kinds have in common: the connection, and when it was last heard."""

    __slots__ = ("_exchange", "_heard", "_heard_at", "_hosted", "_limit_s", "attempt", "size")

    def __init__(self, exchange: "Exchange", attempt: Attempt, limit_s: float):
        self.attempt = attempt
        self.size = 0
        """Bytes that came."""
        self._exchange = exchange
        self._hosted = exchange.relay.targets[attempt.target].hosted
        self._heard = True
        self._heard_at = 0.0
        self._limit_s = limit_s

    def on_head(self, status: int, headers: Headers) -> None:
        raise AssertionError("an answer has one head")

    def pause(self) -> None:
        if self.attempt.connection is not None:
            self.attempt.connection.pause()

    def resume(self) -> None:
        self._heard = True
        if self.attempt.connection is not None:
            self.attempt.connection.resume()

    def stop(self) -> None:
        if self.attempt.connection is not None:
            self.attempt.connection.abandon()
            self.attempt.connection = None
        self.attempt.release()

    def check(self, now: float) -> None:
        if self._heard:
            self._heard, self._heard_at = False, now
            exchange = self._exchange
            exchange.relay.books.health.heard(self.attempt.target, exchange.facts.model, now)
        elif now - self._heard_at > self._limit_s:
            self.stop()
            self.on_lost(f"no byte for {self._limit_s:g} s", False)

    @abstractmethod
    def on_lost(self, reason: str, unseen: bool) -> None: ...


class Whole(Listening):
    """An answer that is no stream."""

    __slots__ = ("_passing", "_pieces")

    def __init__(self, exchange: "Exchange", attempt: Attempt):
        super().__init__(exchange, attempt, exchange.relay.routing.idle_timeout_s)
        self._pieces: list[bytes] = []
        self._passing = False

    @property
    def body(self) -> bytes:
        """What was kept of it."""
        return b"".join(self._pieces)

    def on_body(self, data: bytes) -> None:
        self._heard = True
        self.size += len(data)
        if self._passing:
            self._exchange.sink.write(data)
            return
        self._pieces.append(data)
        if self.size <= WHOLE_BYTES:
            return
        if not translation.translates(self._hosted, self._exchange.call):
            self._pass()
        elif self.size > MAX_TRANSLATED_BYTES:
            self.stop()
            self.on_lost(f"an answer of more than {MAX_TRANSLATED_BYTES} bytes", False)

    def on_end(self) -> None:
        self.attempt.connection = None
        exchange = self._exchange
        if not self._passing:
            try:
                body = translation.answer(self._hosted, exchange.call, self.body)
            except Untranslatable as error:
                self.attempt.release()
                exchange.failed(self.attempt, Failed(str(error)))
                return
            exchange.sink.start(self.attempt.status, exchange.answer_headers(self.attempt), len(body))
            exchange.sink.write(body)
        exchange.sink.finish()
        exchange.end(Outcome.OK, self.attempt.status)

    def on_lost(self, reason: str, unseen: bool) -> None:
        self.attempt.connection = None
        if self._passing:
            self._exchange.sink.abort()
            self._exchange.relay.broke(self.attempt, self._exchange.facts, reason)
            self._exchange.end(Outcome.CUT, self.attempt.status)
        else:
            self.attempt.release()
            self._exchange.failed(self.attempt, Failed(reason, begun=True))

    def _pass(self) -> None:
        self._passing = True
        length = value_of(self.attempt.headers, b"content-length")
        known = int(length) if length is not None and length.isdigit() else None
        self._exchange.sink.start(self.attempt.status, self._exchange.answer_headers(self.attempt), known)
        self._exchange.sink.write(self.body)
        # A usage of the answer, if it has one, comes last, and is not looked for in something of that size.
        self._pieces.clear()
