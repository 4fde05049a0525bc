"""Passing a stream on to the client, as it comes. This is the hot path of tokens."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from serve_app.metering.record import Outcome
from serve_app.relay import translation
from serve_app.relay.attempt import Attempt
from serve_app.relay.delivery import Listening
from serve_app.relay.journal import Journal, has_content
from serve_app.relay.ledger import Ledger
from serve_app.relay.sse import DONE, IDS, MALFORMED, MAX_EVENT_BYTES, NO_IDS, end_of_events, first_fault

if TYPE_CHECKING:
    from serve_app.relay.exchange import Exchange

ENDINGS = (DONE, b'"type":"response.completed"', b'"type":"message_stop"', b'"type": "message_stop"')
"""What the last event of a whole stream holds: OpenAI's completions, its responses, Anthropic's messages."""

LAST_BYTES = 2**16


class Stream(Listening):
    """Server-sent events. Only whole ones pass, so that a client never holds half of one when the stream is cut."""

    __slots__ = (
        "_failed",
        "_journal",
        "_journals",
        "_rest",
        "_strips",
        "_tail",
        "_translate",
        "_write",
        "begun",
        "events",
        "usage_block",
    )

    def __init__(self, exchange: "Exchange", attempt: Attempt):
        routing = exchange.relay.routing
        continuable = exchange.call.continuable
        super().__init__(exchange, attempt, routing.continuation.stall_s if continuable else routing.idle_timeout_s)
        self._journal = Journal()
        self._journals = continuable
        self._strips = exchange.call.asks_ids and self._hosted is None
        self._translate: Callable[[bytes], bytes] | None = translation.stream(self._hosted, exchange.call)
        self._failed = False
        """Whether the engine itself told the client of an error."""
        self._rest = b""
        self._tail = b""
        self.usage_block = b""
        """Events with the engine's own count of tokens."""
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
        if data:
            self._take(data)

    def on_end(self) -> None:
        self.attempt.connection = None
        if self.finished:
            self._exchange.sink.finish()
            self._exchange.end(Outcome.CUT if self._failed else Outcome.OK, self.attempt.status)
        else:
            self._exchange.cut(self, "it ended without its last event")

    def on_lost(self, reason: str, unseen: bool) -> None:
        if self.finished:
            self.on_end()
        else:
            self.attempt.connection = None
            self._exchange.cut(self, reason)

    @property
    def may_leave(self) -> bool:
        """Whether it could go on elsewhere. Before its first event it would be a retry, of which there are not many."""
        return self._journals and self.begun and not self.finished

    def leave(self) -> None:
        """Go on elsewhere, though nothing is wrong."""
        self.stop()
        self._exchange.cut(self, "the site is draining", ill=False)

    @property
    def finished(self) -> bool:
        """Whether the last event was the one that ends a stream."""
        last = self._tail[-LAST_BYTES:].rstrip().rpartition(b"\n\n")[2]
        return not self._rest and any(ending in last for ending in ENDINGS)

    def journal(self) -> Journal:
        """What the client has of it."""
        return self._journal

    def tokens(self) -> tuple[int | None, int]:
        """Of the prompt, if that is known, and of the answer, where the engine did not tell."""
        if not self._journals:
            return None, max(0, self.events - 1)
        delivered = self._journal.read()
        return None if delivered.prompt_ids is None else len(delivered.prompt_ids), delivered.tokens

    def _take(self, data: bytes) -> None:
        self.events += data.count(b"\n\n")
        if b'"usage"' in data:
            self.usage_block = data
        fault = first_fault(data)
        good = data if fault is None else data[: fault[0]]
        if good:
            if self._journals:
                self._journal.add(good)
            self._pass(IDS.sub(NO_IDS, good) if self._strips else good)
        if fault is not None:
            self._stumble(data[fault[0] :], fault[1])

    def _stumble(self, events: bytes, reason: str) -> None:
        """The first of these is the engine's error, or none at all."""
        if self._journals or reason == MALFORMED:
            self.stop()
            self._exchange.cut(self, reason)
        else:
            # What the engine said is what the client gets, where nothing better can be done.
            self._failed = True
            self._pass(events)

    def _pass(self, events: bytes) -> None:
        self._tail = events
        self._write(events)

    def _begin(self, events: bytes) -> None:
        sink = self._exchange.sink
        sink.start(self.attempt.status, self._exchange.answer_headers(self.attempt), None)
        self.begun = True
        self._write = sink.write
        sink.write(events)

    def _whole_events(self, data: bytes) -> bytes:
        end = end_of_events(data)
        if not end and len(data) > MAX_EVENT_BYTES:
            # It passes in pieces: memory stays bounded, and such a stream can't be continued.
            self._journals = False
            return data
        self._rest = data[end:]
        return data[:end]


class StreamWithIds(Stream):
    """One whose every event tells its token ids, which the client did not ask for. They are taken out, and are all that
    is kept."""

    __slots__ = ("_ledger", "_plain")

    def __init__(self, exchange: "Exchange", attempt: Attempt):
        super().__init__(exchange, attempt)
        self._ledger = Ledger()
        self._plain = False
        """The engine tells no ids: it is a stream like others."""

    def on_body(self, data: bytes) -> None:
        if self._rest or not self.begun or data[-2:] != b"\n\n":
            super().on_body(data)
            return
        self._heard = True
        self.size += len(data)
        self._take(data)

    def _take(self, data: bytes) -> None:
        parts = IDS.split(data)
        # Events and lists of ids are as many, nearly always.
        if len(parts) // 2 != data.count(b"\n\ndata: ") + 1 or not self.begun:
            self._look(data)
            return
        self._ledger.add(data, parts[1::2])
        self._tail = passing = NO_IDS.join(parts[::2])
        self._write(passing)

    def journal(self) -> Journal:
        return self._journal if self._plain else self._ledger.journal()

    def tokens(self) -> tuple[int | None, int]:
        return super().tokens() if self._plain else self._ledger.tokens()

    def _look(self, data: bytes) -> None:
        """The first events or the last ones, or trouble."""
        if not self.begun and not self._plain:
            first = data[: data.find(b"\n\n") + 2]
            if first_fault(first) is None:
                self._plain = IDS.search(first) is None
        if self._plain:
            super()._take(data)
            return
        fault = first_fault(data)
        good = data if fault is None else data[: fault[0]]
        if b'"usage"' in good:
            self.usage_block = good
        if good:
            self._note(good)
            self._pass(IDS.sub(NO_IDS, good))
        if fault is not None:
            self._stumble(data[fault[0] :], fault[1])

    def _note(self, events: bytes) -> None:
        if not self.begun:
            end = events.find(b"\n\n") + 2
            self._ledger.begin(events[:end])
            events = events[end:]
        parts = IDS.split(events)
        # Behind the last event with ids come the usage and the end.
        rest = parts[-1][parts[-1].find(b"\n\n") + 2 :] if len(parts) > 1 else events
        if events.count(b"\n\n", 0, len(events) - len(rest)) != len(parts) // 2 or has_content(rest):
            self._ledger.spoil()
        if events:
            self._ledger.add(events, parts[1::2])
