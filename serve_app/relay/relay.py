"""The relay: what all exchanges share, and what is to be noted of each."""

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping

from clusters.spec import FleetSpec
from clusters.state import FleetState
from serve_app.errors import ApiError, body_for
from serve_app.metering.log import RequestLog
from serve_app.metering.price import Tariff, hosted_tariff, site_tariff, usd
from serve_app.metering.record import Outcome, Record
from serve_app.metering.usage import TAIL_BYTES, Usage, last_usage, whole_usage
from serve_app.relay.attempt import Attempt, Failed
from serve_app.relay.budget import Budget
from serve_app.relay.call import Call
from serve_app.relay.delivery import Delivery, Whole
from serve_app.relay.exchange import Exchange
from serve_app.relay.holding import Holding
from serve_app.relay.pool import Pool
from serve_app.relay.sink import Sink
from serve_app.relay.stream import Stream
from serve_app.relay.targets import Target
from serve_app.routing.books import Books
from serve_app.routing.choice import Awaited, Choice, Router
from serve_app.routing.explanation import Explanation
from serve_app.routing.facts import Facts
from serve_app.routing.filters import why_unhealthy
from serve_app.routing.leases import Place
from serve_app.routing.recent import Recent
from serve_app.telemetry import Telemetry

TICK_S = 0.25
AT_ONCE = 64
"""Cut streams, and then kinds of held requests, that are tried in vain when a place may have come free."""


class Relay:
    """One per ingress replica, on one event loop."""

    def __init__(
        self,
        spec: FleetSpec,
        targets: Mapping[str, Target],
        fleet: Callable[[], FleetState],
        router: Router,
        books: Books,
        pool: Pool,
        telemetry: Telemetry,
        log: RequestLog | None,
    ):
        self.routing = spec.routing
        self.targets = targets
        self.books = books
        self.pool = pool
        self.telemetry = telemetry
        self.recent = Recent(spec.routing.explained_requests)
        self.holding: Holding[Exchange] = Holding(spec.routing.hold)
        self.retries = Budget(spec.routing.retry_budget)
        self.hedges = Budget(spec.routing.hedge.max_share if spec.routing.hedge.enabled else 0)
        self.open: set[Exchange] = set()
        self.awaited: dict[Place, int] = {}
        """Requests that wait for more replicas at a place."""
        self._fleet = fleet
        self._router = router
        self._log = log
        self._tags = _tags(spec)
        self._context = {
            (placement.site, placement.model): int(
                placement.engine.get("max_model_len", spec.model(placement.model).max_model_len)
            )
            for placement in spec.placements
        }
        self._stranded: list[asyncio.Future[None]] = []
        self._admitting = False

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the first call."""
        self.loop = loop

    def begin(self, call: Call, sink: Sink) -> Exchange:
        """Answers the call through `sink`, now or later."""
        record = Record(
            request_id=call.request_id,
            started=time.time(),
            key=call.key,
            tenant=call.facts.tenant,
            model=call.facts.model,
            stream=call.facts.stream,
        )
        exchange = Exchange(self, call, sink, record)
        self.open.add(exchange)
        self.retries.earn()
        self.hedges.earn()
        exchange.start()
        return exchange

    def tick(self) -> None:
        """Several times a second: everything that has to do with time running out."""
        now, observations = time.monotonic(), self._fleet().observations
        leaving = [
            site
            for site, seen in observations.items()
            if seen.state is not None and seen.state.drain_s is not None and seen.state.drain_s <= 0
        ]
        max_age_s = self.routing.state_max_age_s
        silent = {site for site, seen in observations.items() if seen.error and why_unhealthy(seen, now, max_age_s)}
        stuck: set[Hashable] = set()
        for exchange in list(self.open):
            exchange.check(now)
            for site in leaving:
                exchange.leave(site, stuck)
            if silent:
                exchange.forsake(silent, now)
        self.pool.expire(now)
        self._admit()

    # What exchanges ask for

    def choose(self, request_id: str, facts: Facts, excluded: Mapping[str, str]) -> Choice:
        choice = self._router.choose(facts, self._fleet(), excluded, time.monotonic())
        self.recent.keep(request_id, choice)
        return choice

    def explain(self, facts: Facts) -> Explanation:
        """Where a request would go now, and why. Nothing is sent."""
        return self._router.choose(facts, self._fleet(), {}, time.monotonic()).explanation()

    def could_take(self, facts: Facts, excluded: Mapping[str, str]) -> bool:
        """Whether there is another place for a request now. Nothing is noted: it is not sent there yet."""
        return self._router.choose(facts, self._fleet(), excluded, time.monotonic()).target is not None

    def may_retry(self, target: str, model: str) -> bool:
        """After a failure there. Who leaves a place that is ejected adds no load to anything but the places that are to
        do its work; where trouble is everywhere, most places are not."""
        return self.books.health.is_ejected(target, model) or self.retries.spend()

    def awaits(self, model: str, before: str | None, site: str | None) -> None:
        """A request waits for another site than before."""
        if before is not None:
            self.awaited[before, model] -= 1
        if site is not None:
            self.awaited[site, model] = self.awaited.get((site, model), 0) + 1

    def awaited_at(self, site: str) -> dict[str, int]:
        """Requests that wait for the site, by model."""
        return {model: count for (each, model), count in self.awaited.items() if each == site and count}

    def released(self, target: str, model: str) -> None:
        """A lease ends; somebody who is held may have its place."""
        self.books.leases.release(target, model)
        if (self.holding.size or self._stranded) and not self._admitting:
            self._admitting = True
            self.loop.call_soon(self._admit)

    def vacancy(self) -> asyncio.Future[None]:
        """Done when a place may have come free. Cut streams wait for this, and choose before held requests do."""
        future = self.loop.create_future()
        self._stranded.append(future)
        return future

    def max_model_len(self, model: str) -> int:
        """Tokens, at the placements with the longest context."""
        return max(length for (_, each), length in self._context.items() if each == model)

    def context_of(self, target: str, model: str) -> int:
        return self._context.get((target, model), 0)

    # What exchanges tell

    def attempt_failed(self, attempt: Attempt, facts: Facts, failure: Failed) -> None:
        if failure.begun:
            self.broke(attempt, facts, failure.reason)
            return
        now = time.monotonic()
        self.telemetry.attempt_failed(attempt.target, failure.reason)
        if failure.ill:
            self.books.health.failed(attempt.target, facts.model, failure.reason, now)
        if failure.rest_s:
            self.books.health.rest(attempt.target, facts.model, failure.reason, failure.rest_s, now)

    def broke(self, attempt: Attempt, facts: Facts, reason: str) -> None:
        """An answer that had begun broke."""
        self.telemetry.attempt_failed(attempt.target, reason)
        self.books.health.broke(attempt.target, facts.model, reason, time.monotonic())

    def first_byte(self, exchange: Exchange, attempt: Attempt) -> None:
        facts, record, now = exchange.facts, exchange.record, time.monotonic()
        record.site = attempt.target
        record.status = attempt.status
        record.ttft_s = now - exchange.began
        self.books.health.succeeded(attempt.target, facts.model, now)
        self.books.prefixes.learn(facts.blocks, attempt.target, facts.session, facts.prompt_tokens)
        if facts.stream and self.books.latency.wants(attempt.target, facts.model, now):
            self._learn_first_token(attempt, facts.model, now - attempt.started, now)

    def ended(self, exchange: Exchange, delivery: Delivery | None) -> None:
        """The one record of the request is complete."""
        self.open.discard(exchange)
        record = exchange.record
        record.duration_s = time.monotonic() - exchange.began
        record.release, record.pool, record.market, _ = self._tags.get((record.site, record.model), NO_TAGS)
        if delivery is not None:
            self._measure(exchange, delivery)
        self.telemetry.answered(record)
        if self._log is not None:
            self._log.append(record)

    def tell(self, sink: Sink, route: str, error: ApiError, headers: list[tuple[bytes, bytes]]) -> None:
        """An error of our own, in the shape of the route's API."""
        body = body_for(route)(error)
        own = [(name.encode(), value.encode()) for name, value in error.headers.items()]
        sink.start(error.status, [(b"content-type", b"application/json"), *own, *headers], len(body))
        sink.write(body)
        sink.finish()

    def _measure(self, exchange: Exchange, delivery: Delivery) -> None:
        record, attempt, now = exchange.record, delivery.attempt, time.monotonic()
        usage = _usage(exchange, delivery)
        record.tokens_in, record.tokens_out, record.tokens_cached = usage.input, usage.output, usage.cached
        slot_s = now - attempt.started
        if record.outcome is Outcome.OK:
            self.books.health.ended(record.site, record.model)
            if isinstance(delivery, Whole):
                self._learn_whole(attempt, record.model, usage.output, slot_s, now)
            elif usage.output > 1 and record.ttft_s is not None:
                after_first_s = record.duration_s - record.ttft_s
                record.tpot_s = after_first_s / (usage.output - 1)
                if not record.continuations:
                    self.books.latency.finished(attempt.target, record.model, usage.output, after_first_s, now)
        tariff = self._tags.get((record.site, record.model), NO_TAGS)[3]
        record.usd = usd(tariff, slot_s, usage.input, usage.output, delivery.size)

    def _learn_whole(self, attempt: Attempt, model: str, tokens: int, slot_s: float, now: float) -> None:
        """When its first token came is not known: what the others took is left out."""
        latency = self.books.latency
        if latency.wants(attempt.target, model, now):
            others_s = tokens * latency.seconds_per_token(attempt.target, model, now)
            self._learn_first_token(attempt, model, max(slot_s - others_s, slot_s / (tokens + 1)), now)

    def _learn_first_token(self, attempt: Attempt, model: str, seconds: float, now: float) -> None:
        choice = attempt.choice
        self.books.latency.first_token(
            attempt.target, model, seconds, choice.uncached_tokens, choice.load, now, choice.beside_s
        )

    def _admit(self) -> None:
        stranded, self._stranded = self._stranded[:AT_ONCE], self._stranded[AT_ONCE:]
        for future in stranded:
            if not future.done():
                future.set_result(None)
        self.loop.call_soon(self._admit_held)  # after those

    def _admit_held(self) -> None:
        self._admitting = False
        full: dict[Hashable, Awaited | None] = {}
        for exchange in list(self.holding.in_turn(self.holding.size)):
            exchange.retry_held(full)
            if len(full) == AT_ONCE:
                break


Tags = tuple[str, str, str, Tariff]
"""Release, pool, market and tariff."""
NO_TAGS: Tags = ("", "", "", Tariff())


def _tags(spec: FleetSpec) -> dict[tuple[str, str], Tags]:
    """By target and model."""
    tags: dict[tuple[str, str], Tags] = {}
    for placement in spec.placements:
        site = spec.site(placement.site)
        market = site.pool(placement.pool).market
        release = spec.model(placement.model).release
        tags[site.name, placement.model] = (release, placement.pool, market, site_tariff(site, placement))
    for hosted in spec.hosted:
        for model in hosted.models:
            tags[hosted.name, model.model] = ("", "", "hosted", hosted_tariff(model))
    return tags


def _usage(exchange: Exchange, delivery: Delivery) -> Usage:
    """What the engine counted, else what came, else an estimate."""
    estimate = exchange.facts.prompt_tokens
    if isinstance(delivery, Whole):
        return whole_usage(delivery.body) or Usage(estimate, 0, 0)
    if isinstance(delivery, Stream) and delivery.usage_block and not exchange.record.continuations:
        told = last_usage(delivery.usage_block[-TAIL_BYTES:])
        if told is not None:
            return told
    prompt, answer = exchange.tokens()
    return Usage(estimate if prompt is None else prompt, answer, 0)
