"""Watching the fleet: one bounded task per site refreshes what is known of it."""

import asyncio
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from pydantic import ValidationError

from clusters.state import FleetState, Observation, SiteState

JITTER = 0.1
"""Share of the interval by which a reading may come earlier or later, so that ingress replicas don't poll in step."""


class StateUnreadable(Exception):
    """A site's state could not be read. The message says why, for people."""


class StateReader(Protocol):
    """Reads a site's `/fleet/state`."""

    async def read(self, site: str) -> bytes:
        """The JSON as the site sent it, of bounded size. Raises StateUnreadable."""


class Clock(Protocol):
    """Monotonic time, and waiting."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class MonotonicClock:
    """The process's own clock."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FleetWatch:
    """Publishes an immutable FleetState, replaced at every reading. Entering it reads every site once."""

    def __init__(
        self,
        sites: Sequence[str],
        reader: StateReader,
        *,
        interval_s: float,
        timeout_s: float,
        clock: Clock,
        rng: random.Random,
    ):
        self._reader = reader
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._rng = rng
        self._tasks: list[asyncio.Task[None]] = []
        self._state = FleetState(observations={site: Observation(site=site, error="not read yet") for site in sites})

    @property
    def state(self) -> FleetState:
        return self._state

    async def __aenter__(self) -> Self:
        sites = list(self._state.observations)
        await asyncio.gather(*(self.observe(site) for site in sites))
        self._tasks = [asyncio.create_task(self._watch(site), name=f"watch {site}") for site in sites]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises when a watching task has ended: its site would look stale for ever."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"{task.get_name()} has ended") from (None if task.cancelled() else task.exception())

    async def observe(self, site: str) -> None:
        """Read one site once and publish what came of it. A failed reading keeps the last state, with its age."""
        started = self._clock.now()
        try:
            state = await self._read(site)
            now = self._clock.now()
            observation = Observation(site=site, state=state, read_at=now, round_trip_s=now - started)
        except StateUnreadable as error:
            observation = self._state.observations[site].model_copy(update={"error": str(error)})
        self._state = FleetState(observations={**self._state.observations, site: observation})

    async def _watch(self, site: str) -> None:
        while True:
            await self._clock.sleep(self._interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER))
            await self.observe(site)

    async def _read(self, site: str) -> SiteState:
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._reader.read(site)
            state = SiteState.model_validate_json(body)
        except TimeoutError as error:
            raise StateUnreadable(f"no state within {self._timeout_s:g} s") from error
        except ValidationError as error:
            raise StateUnreadable(f"its state is not valid: {error.errors()[0]['msg']}") from error
        if state.site != site:
            raise StateUnreadable(f"the endpoint answers as site {state.site!r}")
        return state
