"""Passing an answer on to the client, as it comes. This is the hot path of streams."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from serve_app.metering.record import Outcome
from serve_app.relay import translation
from serve_app.relay.attempt import Attempt, Failed
from serve_app.relay.connection import Headers
from serve_app.relay.headers import value_of
from serve_app.relay.hosted.anthropic import Untranslatable
from serve_app.relay.journal import Journal
from serve_app.relay.sse import DONE, ERROR, IDS, MAX_EVENT_BYTES, NO_IDS, end_of_events, first_fault

if TYPE_CHECKING:
    from serve_app.relay.exchange import Exchange

WHOLE_BYTES = 2**18
"""An answer that is no stream is held back up to this size: one that is cut can then be had from another site."""

ENDINGS = (DONE, b'"type":"response.completed"', b'"type":"message_stop"', b'"type": "message_stop"')
"""What the last event of a whole stream holds: OpenAI's completions, its responses, Anthropic's messages."""


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


class _Listening:
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
        elif now - self._heard_at > self._limit_s:
            self.stop()
            self.on_lost(f"no byte for {self._limit_s:g} s", False)

    def on_lost(self, reason: str, unseen: bool) -> None:
        raise NotImplementedError


class Whole(_Listening):
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
        if self.size > WHOLE_BYTES and self._hosted is None:
            self._pass()

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
            self._exchange.failed(self.attempt, Failed(reason))

    def _pass(self) -> None:
        self._passing = True
        length = value_of(self.attempt.headers, b"content-length")
        known = int(length) if length is not None and length.isdigit() else None
        self._exchange.sink.start(self.attempt.status, self._exchange.answer_headers(self.attempt), known)
        self._exchange.sink.write(self.body)
        # A usage of the answer, if it has one, comes last, and is not looked for in something of that size.
        self._pieces.clear()


class Stream(_Listening):
    """Server-sent events. Only whole ones pass, so that a client never holds half of one when the stream is cut."""

    __slots__ = (
        "_journals",
        "_rest",
        "_strips",
        "_tail",
        "_translate",
        "_write",
        "begun",
        "events",
        "journal",
        "usage_block",
    )

    def __init__(self, exchange: "Exchange", attempt: Attempt):
        routing = exchange.relay.routing
        continuable = exchange.call.continuable
        super().__init__(exchange, attempt, routing.continuation.stall_s if continuable else routing.idle_timeout_s)
        self.journal = Journal()
        self._journals = continuable
        self._strips = exchange.call.asks_ids and self._hosted is None
        self._translate: Callable[[bytes], bytes] | None = translation.stream(self._hosted, exchange.call)
        self._rest = b""
        self._tail = b""
        self.usage_block = b""
        self.events = 0
        """Those that passed uncounted otherwise: about as many as tokens."""
        self.begun = False
        """Whether the client has any of it."""
        self._write: Callable[[bytes], None] = self._begin

    def on_body(self, data: bytes) -> None:
        self._heard = True
        self.size += len(data)
        if self._translate is not None:
            data = self._translate(data)
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith(b"\n\n"):
            data = self._whole_events(data)
        if not data:
            return
        if self._strips:
            passing, counted = IDS.subn(NO_IDS, data)
            if counted != data.count(b"\n\n"):
                self._look(data)
                return
        else:
            passing = data
            self.events += data.count(b"\n\n")
            if ERROR in data or b'"usage"' in data:
                self._look(data)
                return
        if self._journals:
            self.journal.add(data)
        self._tail = passing
        self._write(passing)

    def on_end(self) -> None:
        self.attempt.connection = None
        if self.finished:
            self._exchange.sink.finish()
            self._exchange.end(Outcome.OK, self.attempt.status)
        else:
            self._exchange.cut(self, "it ended without its last event")

    def on_lost(self, reason: str, unseen: bool) -> None:
        if self.finished:
            self.on_end()
        else:
            self.attempt.connection = None
            self._exchange.cut(self, reason)

    def leave(self) -> None:
        """Go on elsewhere, though nothing is wrong, if that can be done without loss."""
        if self._journals and not self.finished:
            self.stop()
            self._exchange.cut(self, "the site is draining", ill=False)

    @property
    def finished(self) -> bool:
        """Whether the last event was the one that ends a stream."""
        last = self._tail.rstrip()[-(2**16) :].rpartition(b"\n\n")[2]
        return not self._rest and any(ending in last for ending in ENDINGS)

    def _begin(self, data: bytes) -> None:
        sink = self._exchange.sink
        sink.start(self.attempt.status, self._exchange.answer_headers(self.attempt), None)
        self.begun = True
        self._write = sink.write
        sink.write(data)

    def _whole_events(self, data: bytes) -> bytes:
        end = end_of_events(data)
        if not end and len(data) > MAX_EVENT_BYTES:
            # It passes in pieces: memory stays bounded, and such a stream can't be continued.
            self._journals = False
            return data
        self._rest = data[end:]
        return data[:end]

    def _look(self, data: bytes) -> None:
        """Events among which is one that is not plain content: the first or the last ones, or trouble."""
        fault = first_fault(data)
        good = data[: fault[0]] if fault else data
        if b'"usage"' in good:
            self.usage_block = good
        if good:
            if self._journals:
                self.journal.add(good)
            self._tail = IDS.sub(NO_IDS, good) if self._strips else good
            self._write(self._tail)
        if fault is not None and (self._journals or fault[1] == "a malformed event"):
            self.stop()
            self._exchange.cut(self, fault[1])
        elif fault is not None:
            # What the engine said is what the client gets, where nothing better can be done.
            self._tail = data[fault[0] :]
            self._write(self._tail)
