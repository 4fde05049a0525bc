"""One try at one target, up to the first byte of its answer."""

import asyncio
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from serve_app.relay.connection import Connection, Headers
from serve_app.relay.headers import value_of
from serve_app.relay.hosted.anthropic import Untranslatable
from serve_app.relay.pool import NoConnection
from serve_app.routing.choice import Choice

if TYPE_CHECKING:
    from serve_app.relay.exchange import Exchange

MAX_QUOTE_BYTES = 2**16
FORGETFUL_S = 1.0
"""So long Serve may take to tell a site's proxy of other replicas."""
USUAL = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""Routes that every engine of such a model has."""
CONTEXT = (b"maximum context length", b"context_length_exceeded", b"maximum model length")
"""How engines say that a prompt is too long for them."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A target's own refusal, kept for the client in case that no other one does better."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of an answer has reached the client, so another target may try."""

    reason: str
    silent: bool = False
    quote: Quote | None = None
    ill: bool = True
    """Whether it speaks against the target's health. Being busy does not."""
    rest_s: float = 0.0
    """For so long it is left alone, by all."""
    too_long: bool = False
    """The prompt does not fit there."""
    begun: bool = False
    """There was a part of an answer."""
    passing: bool = False
    """Once rested it may be asked again: the site's proxy does not know the model, while Serve tells it of others."""


class Verdict(Enum):
    """What a status means for the request."""

    ANSWERED = "the target did its work"
    MISTAKE = "it says that the client made a mistake"
    BUSY = "it cannot now; what it says may be told to the client"
    ASTRAY = "it and the ingress disagree; what it says is not for the client"


def judge(status: int) -> Verdict:
    """A 500 is worth another site: an engine that is dying says so before its server is gone."""
    if status in (408, 429) or status >= 500:
        return Verdict.BUSY
    if status in (401, 403, 404, 405) or not (200 <= status < 300 or 400 <= status < 500):
        return Verdict.ASTRAY
    return Verdict.ANSWERED if status < 400 else Verdict.MISTAKE


class Attempt:
    """Listens to one connection until the answer begins, and then hands it to the exchange."""

    __slots__ = (
        "_body",
        "_connecting",
        "_deadline",
        "_exchange",
        "_leased",
        "_verdict",
        "choice",
        "connection",
        "headers",
        "hedge",
        "started",
        "status",
        "target",
    )

    def __init__(self, exchange: "Exchange", choice: Choice, target: str, hedge: bool = False):
        self.choice = choice
        self.target = target
        self.hedge = hedge
        self.connection: Connection | None = None
        self.status = 0
        self.headers: Headers = []
        self.started = 0.0
        self._exchange = exchange
        self._connecting: asyncio.Task[None] | None = None
        self._verdict = Verdict.ANSWERED
        self._body = b""
        self._deadline = 0.0
        self._leased = False

    def start(self) -> None:
        relay = self._exchange.relay
        self.started = time.monotonic()
        self._deadline = self.started + relay.routing.first_byte_timeout_s
        model = self._exchange.call.facts.model
        relay.books.leases.take(self.target, model)
        self._leased = True
        if self.choice.probe:
            relay.books.health.probing(self.target, model, self.started)
        connection = relay.pool.idle(self.target, self.started)
        if connection is None:
            self._connecting = relay.loop.create_task(self._connect())
        else:
            self._send(connection)

    def release(self) -> None:
        """The lease ends. Harmless when it has."""
        if self._leased:
            self._leased = False
            self._exchange.relay.released(self.target, self._exchange.call.facts.model)

    def abandon(self) -> None:
        """Stop it: the target's work is not wanted any more."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self.connection is not None:
            self.connection.abandon()
            self.connection = None
        self.release()

    def check(self, now: float) -> None:
        """Fails when it has been silent for too long."""
        if now > self._deadline:
            self.abandon()
            seconds = self._exchange.relay.routing.first_byte_timeout_s
            self._exchange.failed(self, Failed(f"no byte within {seconds:g} s", silent=True))

    async def _connect(self) -> None:
        try:
            connection = await self._exchange.relay.pool.connect(self.target)
        except NoConnection as error:
            self._fail(Failed(str(error), silent=error.silent))
        else:
            self._connecting = None
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        try:
            head, body = self._exchange.request_for(self.target)
        except Untranslatable as error:
            self._exchange.relay.pool.returned(connection)
            self._fail(Failed(str(error), ill=False))
            return
        self.connection = connection
        connection.send(head, body, self)

    # The connection's side

    def on_head(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self._verdict = judge(status)

    def on_body(self, data: bytes) -> None:
        if self._verdict is Verdict.ANSWERED:
            self._exchange.begun(self, data)
        elif len(self._body) <= MAX_QUOTE_BYTES:
            self._body += data

    def on_end(self) -> None:
        self.connection = None
        match self._verdict:
            case Verdict.ANSWERED:
                self._fail(Failed(f"an empty answer with status {self.status}"))
            case Verdict.MISTAKE if any(sign in self._body for sign in CONTEXT):
                self._fail(Failed("the prompt is too long there", quote=self._quote(), ill=False, too_long=True))
            case Verdict.MISTAKE:
                self._exchange.refused(self, self._body)
            case Verdict.BUSY:
                busy = self.status in (408, 429)
                rest_s = self._rest_s() if busy else 0.0
                self._fail(Failed(f"status {self.status}", quote=self._quote(), ill=not busy, rest_s=rest_s))
            case Verdict.ASTRAY:
                # A route that an engine lacks must not make one client's requests speak against it.
                lacking = self.status in (404, 405) and self._exchange.call.route not in USUAL
                own = self._exchange.relay.targets[self.target].hosted is None
                passing = own and self.status == 404 and not lacking
                rest_s = FORGETFUL_S if passing else 0.0
                self._fail(Failed(f"status {self.status}", ill=not lacking, rest_s=rest_s, passing=passing))

    def on_lost(self, reason: str, unseen: bool) -> None:
        self.connection = None
        if unseen:
            # Not the target's failure: the next connection is a new one.
            self._connecting = self._exchange.relay.loop.create_task(self._connect())
        else:
            self._fail(Failed(reason))

    def _fail(self, failure: Failed) -> None:
        self.release()
        self._exchange.failed(self, failure)

    def _quote(self) -> Quote | None:
        is_json = (value_of(self.headers, b"content-type") or b"").startswith(b"application/json")
        fits = len(self._body) <= MAX_QUOTE_BYTES
        return Quote(self.status, self.headers, self._body) if is_json and fits else None

    def _rest_s(self) -> float:
        """`Retry-After` in seconds; its other form, a date, is not worth a clock of the target's."""
        after = value_of(self.headers, b"retry-after") or b""
        return min(float(after), 60.0) if after.isdigit() else 0.0
