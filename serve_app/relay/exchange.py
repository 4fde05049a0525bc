"""One request: from its first attempt, perhaps through others, to the end of its answer."""

import asyncio
import time
from collections.abc import Collection, Hashable
from math import ceil
from typing import TYPE_CHECKING

from msgspec import structs

from serve_app.errors import ApiError, Busy, NoSite, NotAllowedHere, UpstreamFailed, UpstreamTimeout
from serve_app.metering.record import Outcome, Record
from serve_app.relay import translation
from serve_app.relay.attempt import Attempt, Failed, Quote
from serve_app.relay.call import Call, asking_for_ids
from serve_app.relay.connection import Headers
from serve_app.relay.continuation import Continuation, elsewhere
from serve_app.relay.delivery import Delivery, Whole, is_event_stream
from serve_app.relay.headers import for_client, ours, request_head
from serve_app.relay.sink import Sink
from serve_app.relay.stream import Stream, StreamWithIds
from serve_app.routing.choice import Awaited, Choice
from serve_app.routing.facts import Facts

if TYPE_CHECKING:
    from serve_app.relay.relay import Relay


class Exchange:
    """Made for one call. The door tells it of the client, attempts and deliveries of the target."""

    __slots__ = (
        "_attempts",
        "_awaited",
        "_continuation",
        "_delivery",
        "_failures",
        "_hedge",
        "_held_since",
        "_hold_until",
        "_over",
        "_paused_since",
        "began",
        "call",
        "facts",
        "record",
        "relay",
        "sink",
    )

    def __init__(self, relay: "Relay", call: Call, sink: Sink, record: Record):
        self.relay = relay
        self.call = call
        self.sink = sink
        self.record = record
        self.began = time.monotonic()
        self.facts: Facts = call.facts
        self._attempts: list[Attempt] = []
        self._failures: dict[str, Failed] = {}
        self._delivery: Delivery | None = None
        self._continuation: Continuation | None = None
        self._held_since = 0.0
        self._hold_until = 0.0
        self._awaited: str | None = None
        self._paused_since = 0.0
        self._hedge: asyncio.TimerHandle | None = None
        self._over = False

    def start(self) -> None:
        self._try()
        if self.relay.routing.hedge.enabled and self._attempts:
            self._plan_hedge(self._attempts[0].choice)

    # The client's side

    def client_left(self) -> None:
        self.end(Outcome.CLIENT_LEFT)

    def pause(self) -> None:
        self._paused_since = time.monotonic()
        if self._continuation is not None:
            self._continuation.pause()
        elif self._delivery is not None:
            self._delivery.pause()

    def resume(self) -> None:
        self._paused_since = 0.0
        if self._continuation is not None:
            self._continuation.resume()
        elif self._delivery is not None:
            self._delivery.resume()

    @property
    def paused(self) -> bool:
        return self._paused_since > 0

    # The clock's side

    def check(self, now: float) -> None:
        """Called several times a second."""
        if self._paused_since:
            if now - self._paused_since > self.relay.routing.idle_timeout_s:
                self.sink.abort()
                self.end(Outcome.CLIENT_LEFT)
        elif self._delivery is not None and self._continuation is None:
            self._delivery.check(now)
        elif self._held_since:
            if now > self._hold_until:
                self._stop_holding()
                self._refuse(self._too_busy("Every site that may serve this is full, or starts."))
        else:
            for attempt in list(self._attempts):
                attempt.check(now)

    def leave(self, target: str, stuck: set[Hashable]) -> None:
        """The target wants to be rid of its last streams: go on elsewhere, as soon as that can be done. `stuck` tells,
        and is told, which kinds of requests have no place now."""
        delivery = self._delivery
        if not isinstance(delivery, Stream) or self._continuation is not None or delivery.attempt.target != target:
            return
        if delivery.may_leave and self.facts.kind not in stuck:
            if self.relay.could_take(elsewhere(self.facts), {target: "draining"}):
                delivery.leave()
            else:
                stuck.add(self.facts.kind)

    def forsake(self, silent: Collection[str], now: float) -> None:
        """Neither these sites' states can be read, nor do they answer: who has waited there goes elsewhere, if it can,
        long before `first_byte_timeout_s` is over."""
        if len(self._attempts) != 1 or (attempt := self._attempts[0]).target not in silent:
            return
        heard_at = self.relay.books.health.heard_at(attempt.target, self.facts.model) or 0.0
        quiet_s = now - max(heard_at, attempt.started)
        if quiet_s <= self.relay.routing.continuation.stall_s:
            return
        if self.relay.could_take(self.facts, self._excluded(besides=attempt.target)):
            attempt.abandon()
            self.failed(attempt, Failed(f"nothing was heard of it for {quiet_s:.1f} s", silent=True))

    def retry_held(self, full: dict[Hashable, Awaited | None]) -> None:
        """Try again to find a place, unless there was none for one of its kind. `full` is what those wait for."""
        if not self._held_since:
            return
        kind = (self.facts.kind, tuple(self._excluded()))
        if kind in full:
            self.wait_for(full[kind])
            return
        choice = self._choose()
        if choice.target is None and choice.full:
            full[kind] = choice.awaited
            self.wait_for(full[kind])
        else:
            self._stop_holding()
            self._go(choice)

    # The attempts' side

    def request_for(self, name: str) -> tuple[bytes, bytes]:
        """Head and body."""
        call, target = self.call, self.relay.targets[name]
        if target.hosted is not None:
            path, body = translation.request(target.hosted, call)
        else:
            path = call.site_path
            body = asking_for_ids(call.body) if call.asks_ids else call.body
        return request_head(target, path, call.passing, call.request_id, len(body)), body

    def begun(self, attempt: Attempt, data: bytes) -> None:
        """The first bytes of an answer's body: from here on the request is this target's."""
        for other in self._attempts:
            if other is not attempt:
                other.abandon()
        if attempt.hedge or len(self._attempts) > 1:
            self.relay.telemetry.hedged("won" if attempt.hedge else "lost")
        self._attempts = []
        self._cancel_hedge()
        self.relay.first_byte(self, attempt)
        delivery = self._delivery = self._kind_of(attempt)(self, attempt)
        if attempt.connection is not None:
            attempt.connection.listen(delivery)
        delivery.on_body(data)

    def failed(self, attempt: Attempt, failure: Failed) -> None:
        """Nothing of it reached the client."""
        if self._over:
            return
        target = attempt.target
        self._failures[target] = failure
        self.relay.attempt_failed(attempt, self.facts, failure)
        if failure.too_long:
            self.facts = structs.replace(self.facts, min_context=self.relay.context_of(target, self.facts.model) + 1)
        if attempt in self._attempts:
            self._attempts.remove(attempt)
        self._delivery = None
        if self._attempts:
            return  # the hedge is still out
        if self.record.attempts >= self.relay.routing.max_attempts:
            self._give_up()
        elif not self.relay.may_retry(target, self.facts.model):
            self.relay.telemetry.retry_denied()
            self._give_up()
        else:
            self._try()

    def refused(self, attempt: Attempt, body: bytes) -> None:
        """The engine says that the client made a mistake."""
        self._attempts = []
        self.relay.first_byte(self, attempt)
        attempt.release()
        self._quote(attempt.target, Quote(attempt.status, attempt.headers, body))
        self.end(Outcome.REFUSED, attempt.status)

    def _kind_of(self, attempt: Attempt) -> type[Whole | Stream]:
        if not self.facts.stream or not is_event_stream(attempt.headers):
            return Whole
        own = self.relay.targets[attempt.target].hosted is None
        return StreamWithIds if own and self.call.asks_ids and not self.call.has_stops else Stream

    # The deliveries' side

    def tokens(self) -> tuple[int | None, int]:
        """Of the prompt, if that is known, and of the answer, where no engine told."""
        if self._continuation is not None and self.call.continuable:
            delivered = self._continuation.journal.read()
            return None if delivered.prompt_ids is None else len(delivered.prompt_ids), delivered.tokens
        return self._delivery.tokens() if isinstance(self._delivery, Stream) else (None, 0)

    def answer_headers(self, attempt: Attempt) -> Headers:
        return for_client(attempt.headers) + self._own_headers(attempt.target)

    def cut(self, stream: Stream, reason: str, ill: bool = True) -> None:
        """A stream ended before its end."""
        if not stream.begun:
            stream.attempt.release()
            self.failed(stream.attempt, Failed(reason, ill=ill))
            return
        if ill:
            self.relay.broke(stream.attempt, self.facts, reason)
        stream.attempt.release()
        self._continuation = Continuation(self, stream, reason)
        self._continuation.start()

    def wait_for(self, awaited: Awaited | None) -> None:
        """The request is load for the site that it waits for; one that wakes is given more time."""
        site, waking = awaited or (None, False)
        if waking and self._held_since:
            self._hold_until = max(self._hold_until, self._held_since + self.relay.routing.hold.wake_s)
        if site != self._awaited:
            self.relay.awaits(self.facts.model, self._awaited, site)
            self._awaited = site

    def end(self, outcome: Outcome, status: int = 0) -> None:
        """Once; whatever still runs is stopped."""
        if self._over:
            return
        self._over = True
        self._cancel_hedge()
        self._stop_holding()
        self.wait_for(None)
        for attempt in self._attempts:
            attempt.abandon()
        if self._continuation is not None:
            self._continuation.stop()
        if self._delivery is not None:
            self._delivery.stop()
        self.record.outcome = outcome
        self.record.status = status or self.record.status
        self.relay.ended(self, self._delivery)
        # Nothing refers in circles any more: memory is free at once, without the collector.
        self._attempts, self._delivery, self._continuation = [], None, None

    # Choosing

    def _try(self) -> None:
        self._go(self._choose())

    def _choose(self, besides: str | None = None) -> Choice:
        return self.relay.choose(self.call.request_id, self.facts, self._excluded(besides))

    def _excluded(self, besides: str | None = None) -> dict[str, str]:
        excluded = {name: failure.reason for name, failure in self._failures.items() if not failure.passing}
        return excluded if besides is None else excluded | {besides: "asked already"}

    def _go(self, choice: Choice) -> None:
        if choice.target is not None:
            if choice.last_resort:
                # A sleeper is woken by what goes there in its stead.
                self.wait_for(choice.awaited)
            elif self._awaited is not None:
                self.wait_for(None)
            self.record.attempts += 1
            self.record.site = choice.target
            attempt = Attempt(self, choice, choice.target)
            self._attempts.append(attempt)
            attempt.start()
        elif choice.full:
            self._hold(choice)
        elif self._failures:
            self._give_up()
        else:
            self._refuse(_nobody(choice, self.facts.model, self.relay.routing.poll_interval_s))

    def _plan_hedge(self, choice: Choice) -> None:
        spec = self.relay.routing.hedge
        delay = max(spec.min_delay_s, spec.factor * choice.late_ttft_s)
        self._hedge = self.relay.loop.call_later(delay, self._send_hedge)

    def _send_hedge(self) -> None:
        self._hedge = None
        if self._over or len(self._attempts) != 1:
            return
        first = self._attempts[0].target
        choice = self._choose(besides=first)
        if choice.target is None or choice.usd > self.relay.routing.hedge.max_usd or not self.relay.hedges.spend():
            return
        self.record.attempts += 1
        attempt = Attempt(self, choice, choice.target, hedge=True)
        self._attempts.append(attempt)
        attempt.start()

    def _cancel_hedge(self) -> None:
        if self._hedge is not None:
            self._hedge.cancel()
            self._hedge = None

    # Holding

    def _hold(self, choice: Choice) -> None:
        if not self.relay.holding.join(self.facts.tenant, self):
            self._refuse(self._too_busy("Every site that may serve this is full, and so is the queue."))
            return
        self._held_since = time.monotonic()
        self._hold_until = self._hold_until or self._held_since + self.relay.routing.hold.deadline_s
        self.wait_for(choice.awaited)

    def _stop_holding(self) -> None:
        if self._held_since:
            self.relay.holding.leave(self.facts.tenant, self)
            held_s = time.monotonic() - self._held_since
            self.record.queue_s += held_s
            self._held_since = 0.0
            self.relay.telemetry.held(held_s)

    def _too_busy(self, message: str) -> ApiError:
        self.record.outcome = Outcome.HELD_OUT
        return Busy(message, headers={"retry-after": str(ceil(self.relay.routing.hold.deadline_s / 2) or 1)})

    # Answers of our own

    def _give_up(self) -> None:
        """Tell the client what a target said last, or else that none answered."""
        for target, failure in reversed(self._failures.items()):
            if failure.quote is not None:
                self._quote(target, failure.quote)
                outcome = Outcome.REFUSED if failure.quote.status < 429 else Outcome.FAILED
                self.end(outcome, failure.quote.status)
                return
        reasons = "; ".join(f"{target}: {failure.reason}" for target, failure in self._failures.items())
        silent = all(failure.silent for failure in self._failures.values())
        self._refuse((UpstreamTimeout if silent else UpstreamFailed)(f"No site answered. {reasons}."))

    def _quote(self, target: str, quote: Quote) -> None:
        body = translation.error(self.relay.targets[target].hosted, self.call, quote.status, quote.body)
        self.sink.start(quote.status, for_client(quote.headers) + self._own_headers(target), len(body))
        self.sink.write(body)
        self.sink.finish()
        self.record.site = target

    def _refuse(self, error: ApiError) -> None:
        outcome = self.record.outcome if self.record.outcome is Outcome.HELD_OUT else Outcome.FAILED
        self.relay.tell(self.sink, self.call.route, error, self._own_headers(next(reversed(self._failures), "")))
        self.end(outcome, error.status)

    def _own_headers(self, target: str) -> Headers:
        return ours(self.call.request_id, target, self.record.attempts, self.record.queue_s)


def _nobody(choice: Choice, model: str, retry_after_s: float) -> ApiError:
    reasons = "; ".join(f"{site}: {reason}" for site, reason in choice.rejections.items())
    if choice.forbidden:
        return NotAllowedHere(f"No site may serve this request for {model!r}. {reasons}.")
    return NoSite(f"No site can serve {model!r} now. {reasons}.", headers={"retry-after": str(ceil(retry_after_s))})
