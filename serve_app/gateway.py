"""The ingress without Ray: everything that answers a client, put together."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping

from fastapi import FastAPI

from clusters.spec import FleetSpec
from clusters.watch import FleetWatch, MonotonicClock
from serve_app.api import Parts, build_app
from serve_app.auth import Keyring
from serve_app.relay.relay import Relay
from serve_app.relay.upstream import HttpUpstream
from serve_app.report import SiteReport, site_reports
from serve_app.routing.choice import Chain
from serve_app.routing.filters import fleet_filters
from serve_app.routing.leases import Leases
from serve_app.routing.pickers import lowest
from serve_app.routing.scorers import requests_per_slot
from serve_app.states import HttpStates
from serve_app.telemetry import Backend, Prometheus, Telemetry


class MissingTokens(Exception):
    """The environment lacks tokens of sites."""


def site_tokens(spec: FleetSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Raises MissingTokens, which names every variable."""
    missing = [site.token_variable for site in spec.sites if not environ.get(site.token_variable)]
    if missing:
        raise MissingTokens(f"set {', '.join(missing)} in the environment of every node of the ingress's Ray cluster")
    return {site.name: environ[site.token_variable] for site in spec.sites}


class Gateway:
    """One per ingress replica. `app`'s lifespan opens the connections, starts the watch, and ends both."""

    def __init__(self, spec: FleetSpec, tokens: Mapping[str, str], *backends: Backend):
        endpoints = {site.name: site.endpoint for site in spec.sites}
        rng = random.Random()
        prometheus = Prometheus()
        self._routing = spec.routing
        self._telemetry = Telemetry(prometheus, *backends)
        self._leases = Leases()
        self._upstream = HttpUpstream(endpoints, tokens, spec.routing.connect_timeout_s)
        self._states = HttpStates(endpoints, tokens)
        self._watch = FleetWatch(
            tuple(endpoints),
            self._states,
            interval_s=spec.routing.poll_interval_s,
            # A reading that takes longer would be old when it arrives.
            timeout_s=spec.routing.state_max_age_s / 2,
            clock=MonotonicClock(),
            rng=rng,
        )
        relay = Relay(
            spec.routing,
            lambda: self._watch.state,
            Chain(fleet_filters(spec), requests_per_slot, lowest(rng)),
            self._leases,
            self._upstream,
            self._telemetry,
        )
        self.app = build_app(Parts(spec, Keyring(spec.keys), relay, prometheus, self._reports), self._lifespan)

    def check(self) -> None:
        """Raises when this replica can no longer do its work."""
        self._watch.check()

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with self._upstream, self._states, self._watch:
            gauges = asyncio.create_task(self._set_gauges())
            try:
                yield
            finally:
                gauges.cancel()

    async def _set_gauges(self) -> None:
        while True:
            for report in self._reports():
                self._telemetry.site(report.site, report.healthy, report.age_s)
                for model, count in report.leases.items():
                    self._telemetry.leases(model, report.site, count)
            await asyncio.sleep(self._routing.poll_interval_s)

    def _reports(self) -> tuple[SiteReport, ...]:
        return site_reports(self._watch.state, self._leases.open(), time.monotonic(), self._routing.state_max_age_s)
