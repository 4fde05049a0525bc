"""Finishing a cut stream on another site, so that the client sees no seam, or saying that it can't."""

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from msgspec import structs

from serve_app.errors import UpstreamFailed, error_event
from serve_app.metering.record import Outcome
from serve_app.relay.attempt import CONTEXT
from serve_app.relay.headers import request_head
from serve_app.relay.journal import Delivered
from serve_app.relay.pool import NoConnection
from serve_app.relay.reading import Broken, Reading
from serve_app.relay.resume import Resume, resume, why_not
from serve_app.relay.splice import Splice, Unreadable
from serve_app.relay.sse import IDS, NO_IDS
from serve_app.routing.choice import Choice
from serve_app.routing.facts import Facts

if TYPE_CHECKING:
    from serve_app.relay.exchange import Exchange
    from serve_app.relay.stream import Stream

logger = logging.getLogger(__name__)

BUSY = (408, 429)
MAX_ANSWER_BYTES = 2**22
WAIT_S = 10.0
"""How long a cut stream waits for another site; for one that is full, or wakes, as long as a held request would."""
SEAM = 12
"""Characters that must agree for a place in the text to be known again."""
INCOMPLETE = "\ufffd"
"""What a detokeniser writes for a part of a character."""
MAX_CHARACTER_TOKENS = 5
TAIL_TOKENS = 64
"""Enough tokens to find the end of the delivered text in."""


class TakesNoIds(Broken):
    """Nothing is wrong with the site: by text it may do."""


class Full(Broken):
    """Nothing is wrong with the site: another one may have room."""


class Refused(Exception):
    """The stream can't go on. The message says why, for people."""


class Continuation:
    """A coroutine of its own: off the hot path, it may read what it writes."""

    def __init__(self, exchange: "Exchange", stream: "Stream", reason: str):
        self._exchange = exchange
        self._relay = exchange.relay
        self._facts = elsewhere(exchange.facts)
        self.journal = stream.journal()
        self._reason = reason
        self._by_tokens = True
        self._failed = {stream.attempt.target: f"the stream was cut: {reason}"}
        self._open = asyncio.Event()
        self._open.set()
        self._task: asyncio.Task[None] | None = None
        self._reading: Reading | None = None
        self._place: str | None = None
        if exchange.paused:
            self._open.clear()

    def start(self) -> None:
        """Its place, if there is one, is taken at once: who chooses next is to know."""
        if self._exchange.call.continuable:
            self._take_place()
        self._task = self._relay.loop.create_task(self._run())

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def stop(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._leave()

    async def _run(self) -> None:
        mode = "none"
        try:
            mode = await self._go_on()
        except Refused as refusal:
            self._tell(str(refusal))
        except Exception:
            logger.exception("continuing %s failed", self._exchange.call.request_id)
            self._tell("the ingress had an error")
        else:
            self._relay.telemetry.continued(mode, "ok")
            self._exchange.sink.finish()
            self._exchange.end(Outcome.OK, 200)

    async def _go_on(self) -> str:
        """How it was done. Raises Refused."""
        fields = self._fields()
        delivered = self.journal.read()
        mode = "end"
        for _ in range(self._relay.routing.continuation.max_times):
            if delivered.finish_reason is not None:
                break
            mode = self._plan(fields, delivered).mode
            self._exchange.record.continuations += 1
            try:
                await self._resume(fields, delivered)
                return mode
            except (Broken, NoConnection, Unreadable) as error:
                self._reason = str(error)
                self._relay.telemetry.continued(mode, "broken")
            finally:
                self._leave()
        if delivered.finish_reason is None:
            raise Refused("it was cut too often")
        # Only the last events are lacking.
        self._pass_on(Splice(self._exchange.call.route, fields, delivered).end())
        return mode

    def _plan(self, fields: dict[str, Any], delivered: Delivered) -> Resume:
        """Raises Refused."""
        if not self._relay.routing.continuation.enabled:
            raise Refused("continuing is switched off")
        if not delivered.id and not why_not(fields):
            raise Refused("nothing of it could be read")
        limit = self._relay.max_model_len(self._facts.model)
        plan = resume(self._exchange.call.route, fields, delivered, limit, self._by_tokens)
        if isinstance(plan, str):
            raise Refused(plan)
        return plan

    async def _resume(self, fields: dict[str, Any], delivered: Delivered) -> None:
        """To the end of the stream. Raises Broken, NoConnection, Unreadable and Refused."""
        target = self._place or await self._find_place()
        try:
            ids = delivered.ids[:]
            held = await self._settle(target, fields, delivered)
            known = () if self._exchange.call.asks_ids else ids[len(delivered.ids) :]
            plan = self._plan(fields, delivered)
            reading = self._reading = await self._post(target, plan.route, plan.body)
            await self._check(reading)
            reading.timeout_s = self._relay.routing.continuation.stall_s
            splice = Splice(self._exchange.call.route, fields, delivered, held, known)
            try:
                await self._follow(target, reading, splice)
            finally:
                delivered.ids.extend(splice.known)
        except TakesNoIds:
            raise
        except Full as error:
            self._failed[target] = str(error)
            raise
        except (Broken, NoConnection, Unreadable) as error:
            self._failed[target] = str(error)
            self._relay.books.health.failed(target, self._facts.model, str(error), time.monotonic())
            raise
        self._relay.books.health.succeeded(target, self._facts.model, time.monotonic())
        self._exchange.record.site = target

    async def _follow(self, target: str, reading: Reading, splice: Splice) -> None:
        """Raises Broken and Unreadable."""
        while not splice.finished:
            events = await reading.events()
            if not events:
                raise Broken("it ended without its last event")
            self._relay.books.health.heard(target, self._facts.model, time.monotonic())
            await self._open.wait()
            self._pass_on(splice.feed(events))

    async def _check(self, reading: Reading) -> None:
        """Whether it goes on. Raises Broken where another site may do better, Refused where none would."""
        await reading.begin()
        if reading.status == 200:
            return
        body = await reading.body(MAX_ANSWER_BYTES)
        if reading.status in (400, 422):
            if any(sign in body for sign in CONTEXT):
                raise Refused("prompt and answer together fill the model's context")
            if self._by_tokens:
                self._by_tokens = False
                raise TakesNoIds("the engine takes no token ids")
            raise Refused("the engine refuses to go on with a given beginning")
        raise (Full if reading.status in BUSY else Broken)(f"status {reading.status}")

    async def _find_place(self) -> str:
        """Raises Refused."""
        began = time.monotonic()
        while True:
            choice = self._take_place()
            if self._place is not None:
                self._exchange.wait_for(None)
                return self._place
            if time.monotonic() - began > self._patience_s(choice):
                reasons = "; ".join(f"{site}: {reason}" for site, reason in choice.rejections.items())
                raise Refused(f"no other site can go on. {reasons}")
            self._exchange.wait_for(choice.awaited)
            await self._relay.vacancy()
            if not choice.full:
                # Nobody is left: those that failed earlier may be well again.
                self._failed = dict(list(self._failed.items())[-1:])

    def _take_place(self) -> Choice:
        """At a site that may have the request, if one can have it now."""
        choice = self._relay.choose(self._exchange.call.request_id, self._facts, self._failed)
        self._place = choice.target
        if self._place is not None:
            self._relay.books.leases.take(self._place, self._facts.model)
            if choice.probe:
                self._relay.books.health.probing(self._place, self._facts.model, time.monotonic())
        return choice

    def _patience_s(self, choice: Choice) -> float:
        hold = self._relay.routing.hold
        if not choice.full:
            return WAIT_S
        waking = choice.awaited is not None and choice.awaited.waking
        return max(WAIT_S, hold.wake_s if waking else hold.deadline_s)

    async def _post(self, name: str, route: str, body: bytes) -> Reading:
        call, target = self._exchange.call, self._relay.targets[name]
        connection = await self._relay.pool.connect(name)  # a new one: an idle one may be as dead as the site before
        reading = Reading(connection, self._relay.routing.first_byte_timeout_s)
        path = f"/models/{self._facts.model}{route}".encode()
        head = request_head(target, path, call.passing, call.request_id, len(body))
        connection.send(head, body, reading)
        return reading

    async def _settle(self, target: str, fields: dict[str, Any], delivered: Delivered) -> str:
        """Make the token ids end where a character ends, else an engine would begin with the prompt's own text. Returns
        text of theirs that was held back, since a stop string might have begun in it. Raises Broken, NoConnection, and
        Refused when that can't be told."""
        if not delivered.exact or not self._by_tokens or not fields.get("stop"):
            delivered.unsettle()
            return ""
        for _ in range(MAX_CHARACTER_TOKENS):
            tail = await self._text_of(target, list(delivered.ids[-TAIL_TOKENS:]))
            if not tail.endswith(INCOMPLETE):
                held = _beyond(tail, delivered.text)
                if held is not None:
                    return held
                break
            delivered.ids.pop()
        raise Refused("what the engine held back for a stop string can't be told")

    async def _text_of(self, target: str, ids: list[int]) -> str:
        if not ids:
            return ""
        body = json.dumps({"model": self._facts.model, "tokens": ids}).encode()
        reading = self._reading = await self._post(target, "/detokenize", body)
        text = _prompt_of(await reading.body(MAX_ANSWER_BYTES))
        if reading.status != 200 or text is None:
            raise Broken(f"status {reading.status} for the text of its tokens")
        return text

    def _pass_on(self, events: Any) -> None:
        journal, sink = self.journal, self._exchange.sink
        for event in events:
            journal.add(event)
            journal.read()
            sink.write(IDS.sub(NO_IDS, event) if self._exchange.call.asks_ids else event)

    def _leave(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if self._place is not None:
            self._relay.released(self._place, self._facts.model)
            self._place = None

    def _fields(self) -> dict[str, Any]:
        fields = json.loads(self._exchange.call.body)
        return fields if isinstance(fields, dict) else {}

    def _tell(self, why: str) -> None:
        """A truncated stream never ends as a success."""
        error = UpstreamFailed(f"The answer was cut off ({self._reason}), and could not be continued: {why}.")
        self._relay.telemetry.continued("none", "refused")
        self._exchange.sink.write(error_event(self._exchange.call.route, error))
        self._exchange.sink.abort()
        self._exchange.end(Outcome.CUT, 200)


def elsewhere(facts: Facts) -> Facts:
    """The request as its continuation: hosted targets can't go on by tokens."""
    return structs.replace(facts, hosted="never")


def _prompt_of(answer: bytes) -> str | None:
    """The text in an answer of `/detokenize`."""
    try:
        text = json.loads(answer).get("prompt")
    except (ValueError, AttributeError):
        return None
    return text if isinstance(text, str) else None


def _beyond(tail: str, delivered: str) -> str | None:
    """What of the last tokens' text goes beyond the delivered text. Its beginning may differ from what was delivered:
    tokens out of their context may lose a space."""
    for size in range(len(tail), 0, -1):
        common = tail[:size]
        if delivered.endswith(common):
            return tail[size:]
        if len(common) > SEAM and delivered.endswith(common[-SEAM:]):
            return tail[size:]
    return tail if not delivered else None
