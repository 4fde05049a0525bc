"""The ingress without Ray: everything that answers a client, put together."""

import asyncio
import contextlib
import gc
import logging
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from uuid import uuid4

from fastapi import FastAPI

from clusters.spec import FleetSpec
from clusters.state import Held
from clusters.watch import FleetWatch, MonotonicClock
from serve_app.admission import Admission
from serve_app.api import Parts, build_app
from serve_app.auth import Keyring
from serve_app.door.door import Door
from serve_app.door.limits import Limits
from serve_app.door.listener import acquire
from serve_app.inference import Inference
from serve_app.metering.export import Backend
from serve_app.metering.log import RequestLog
from serve_app.metering.log_files import LogFiles
from serve_app.metering.prometheus import Prometheus
from serve_app.openai import ROUTES
from serve_app.relay.pool import Pool
from serve_app.relay.relay import TICK_S, Relay
from serve_app.relay.targets import targets
from serve_app.report import SiteReport, site_reports
from serve_app.routing.books import Books
from serve_app.routing.choice import Router
from serve_app.states import HttpStates
from serve_app.telemetry import Telemetry
from serve_app.tensors.protocol import is_infer

HELD_LIFETIME_S = 5.0
"""At least so long the sites believe what is held."""
FLUSH_S = 1.0


class Gateway:
    """One per ingress replica. `app`'s lifespan opens everything, and drains and closes it again."""

    def __init__(self, spec: FleetSpec, secrets: Mapping[str, str], *backends: Backend, host: str | None = None):
        """With a `host` it owns the client port there; without, `app` is the only door."""
        # It writes a line for every form that can't be read; the client is told.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        rng = random.Random()
        endpoints = {site.name: site.endpoint for site in spec.sites}
        reachable = targets(spec, secrets)
        books = Books.of(spec)
        router = Router(spec, books, rng)
        log = _request_log(spec)
        self._spec = spec
        self._name = uuid4().hex
        self._host = host
        self._log = log
        self._books = books
        self._telemetry = Telemetry(*backends)
        self._pool = Pool(reachable, spec.routing.connect_timeout_s)
        self._states = HttpStates(endpoints, secrets, self._held)
        self._watch = FleetWatch(
            tuple(endpoints),
            self._states,
            interval_s=spec.routing.poll_interval_s,
            # A reading that takes longer would be old when it arrives.
            timeout_s=spec.routing.state_max_age_s / 2,
            clock=MonotonicClock(),
            rng=rng,
        )
        self.relay = Relay(spec, reachable, lambda: self._watch.state, router, books, self._pool, self._telemetry, log)
        keyring = Keyring(spec.keys)
        admission = Admission(spec, keyring)
        inference = Inference(admission, self.relay, spec.ingress.max_body_bytes)
        parts = Parts(spec, keyring, admission, inference, self.relay, self._states, self._reports)
        self.app = build_app(parts, Prometheus(self._telemetry.sums), self._lifespan)
        self._door = Door(
            self.app,
            inference.hot,
            lambda method, path: method == "POST" and (path in ROUTES or is_infer(path)),
            Limits(max_body_bytes=spec.ingress.max_body_bytes),
        )
        self._tasks: list[asyncio.Task[None]] = []

    def check(self) -> None:
        """Raises when this replica can no longer do its work."""
        self._watch.check()
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"{task.get_name()} has ended") from (None if task.cancelled() else task.exception())

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self.relay.run_on(asyncio.get_running_loop())
        async with self._states, self._watch:
            self._tasks = [
                asyncio.create_task(_every(TICK_S, self._tick), name="the relay's clock"),
                asyncio.create_task(_every(FLUSH_S, self._flush), name="telemetry"),
            ]
            try:
                # What is there by now stays: the collector need not look at it again.
                gc.collect()
                gc.freeze()
                async with self._client_port():
                    yield
            finally:
                for task in self._tasks:
                    task.cancel()
                self._pool.close()
                if self._log is not None:
                    await asyncio.to_thread(self._log.close)

    @contextlib.asynccontextmanager
    async def _client_port(self) -> AsyncIterator[None]:
        if self._host is None:
            yield
            return
        directory = Path(tempfile.gettempdir()) / f"rayfleet-{os.getuid()}"
        listener = await asyncio.to_thread(acquire, self._host, self._spec.ingress.port, directory)
        await self._door.open(listener.socket)
        handing_over = asyncio.create_task(listener.serve_handover())
        try:
            yield
            listener.leave()
            await self._door.drain(self._spec.ingress.drain_s, listener.others)
        finally:
            handing_over.cancel()
            self._door.close()
            listener.close()

    def _held(self, site: str) -> Held:
        lifetime_s = max(HELD_LIFETIME_S, 3 * self._spec.routing.poll_interval_s)
        return Held(ingress=self._name, held=self.relay.awaited_at(site), lifetime_s=lifetime_s)

    async def _tick(self) -> None:
        self.relay.tick()

    async def _flush(self) -> None:
        now = time.monotonic()
        for report in self._reports():
            self._telemetry.set_site(report.site, report.healthy, report.age_s)
        for (site, model), count in self._books.leases.open().items():
            self._telemetry.set_leases(model, site, count)
            self._telemetry.set_ejected(model, site, self._books.health.verdict(site, model, now).illness is not None)
        self._telemetry.set_held(self.relay.holding.size)
        self._telemetry.set_connections(len(self._door.connections))
        if self._log is not None:
            self._telemetry.log_dropped(self._log.flush())
        self._telemetry.flush()

    def _reports(self) -> tuple[SiteReport, ...]:
        return site_reports(
            self._spec, self._watch.state, self._books, time.monotonic(), self._spec.routing.state_max_age_s
        )


def _request_log(spec: FleetSpec) -> RequestLog | None:
    if spec.ingress.request_log is None:
        return None
    directory = Path(spec.ingress.request_log).expanduser()
    files = LogFiles(directory, file_bytes=spec.ingress.request_log_bytes, files=spec.ingress.request_log_files)
    return RequestLog(files)


async def _every(interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await work()
