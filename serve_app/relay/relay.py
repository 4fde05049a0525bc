"""The relay: choose, try, go elsewhere as long as nothing has begun, then stream through."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from starlette.types import Send

from clusters.spec import RoutingSpec
from clusters.state import FleetState
from serve_app.errors import FleetError, NoSite, UpstreamFailed, UpstreamTimeout
from serve_app.relay.attempt import Begun, Call, Failed, Quote, attempt
from serve_app.relay.headers import for_client
from serve_app.relay.stream import stream
from serve_app.relay.upstream import Upstream
from serve_app.routing.choice import Chain
from serve_app.routing.leases import Leases
from serve_app.telemetry import Outcome, Record, Telemetry


@dataclass(frozen=True)
class Relay:
    """Answers calls. Of a call it keeps nothing but its lease."""

    routing: RoutingSpec
    fleet: Callable[[], FleetState]
    chain: Chain
    leases: Leases
    upstream: Upstream
    telemetry: Telemetry

    async def serve(self, call: Call, send: Send) -> None:
        """Send the client one answer, over ASGI. Raises FleetError when none has begun."""
        record = Record(call.facts.model, started=time.monotonic())
        try:
            await self._serve(call, send, record)
        except asyncio.CancelledError:
            record.outcome = Outcome.CLIENT_LEFT
            raise
        finally:
            self.telemetry.answered(record, time.monotonic())

    async def _serve(self, call: Call, send: Send, record: Record) -> None:
        failures: dict[str, Failed] = {}
        while record.attempts < self.routing.max_attempts:
            fleet = self.fleet()
            reasons = {site: failure.reason for site, failure in failures.items()}
            choice = self.chain.choose(call.facts, fleet, self.leases, reasons, time.monotonic())
            if choice.site is None:
                if not failures:
                    raise self._no_site(call, choice.rejections)
                break
            record.site = choice.site
            record.attempts += 1
            with self.leases.take(choice.site, call.facts.model, fleet.observations[choice.site].read_at or 0):
                tried = await attempt(self.upstream, choice.site, call, self.routing.first_byte_timeout_s)
                if isinstance(tried, Begun):
                    await self._deliver(tried, send, record)
                    return
            failures[choice.site] = tried
            self.telemetry.attempt_failed(choice.site, tried.reason)
        await _give_up(failures, send, record)

    async def _deliver(self, begun: Begun, send: Send, record: Record) -> None:
        record.first_byte = time.monotonic()
        headers = for_client(begun.answer.headers, record.site, record.attempts)
        try:
            whole = await stream(begun, headers, self.routing.idle_timeout_s, send)
        finally:
            begun.answer.close()
        record.outcome = Outcome.CUT if not whole else Outcome.OK if begun.answer.status < 400 else Outcome.REFUSED

    def _no_site(self, call: Call, rejections: Mapping[str, str]) -> NoSite:
        reasons = "; ".join(f"{site}: {reason}" for site, reason in rejections.items())
        return NoSite(
            f"No site can serve {call.facts.model!r} now. {reasons}.",
            headers={"retry-after": str(ceil(self.routing.poll_interval_s))},
        )


async def _give_up(failures: Mapping[str, Failed], send: Send, record: Record) -> None:
    """Tell the client what the engine said last, or else that none answered."""
    for site, failure in reversed(list(failures.items())):
        if failure.quote:
            await _quote(failure.quote, for_client(failure.quote.headers, site, record.attempts), send)
            return
    raise _exhausted(failures)


async def _quote(quote: Quote, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    await send({"type": "http.response.start", "status": quote.status, "headers": headers})
    await send({"type": "http.response.body", "body": quote.body, "more_body": False})


def _exhausted(failures: Mapping[str, Failed]) -> FleetError:
    reasons = "; ".join(f"{site}: {failure.reason}" for site, failure in failures.items())
    kind = UpstreamTimeout if all(failure.silent for failure in failures.values()) else UpstreamFailed
    return kind(f"No site answered. {reasons}.", headers={"x-rayfleet-attempts": str(len(failures))})
