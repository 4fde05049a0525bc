"""The load: closed loops, a fixed rate beside its baseline, and many open streams."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from bench.router.connection import Connection, Tally
from bench.router.requests import Target

DRAIN_S = 10.0
"""For answers that are still on their way when a fixed rate ends."""
RAMP_PER_S = 500
"""Streams opened per second."""
MAX_WAITING = 32
"""Streams without a first byte at any time."""
READY_S = 15.0
"""For the first bytes of all of them."""
POLL_S = 0.05


@asynccontextmanager
async def closed_loop(target: Target, requests: Iterator[bytes], connections: int) -> AsyncIterator[Tally]:
    """Every connection sends its next request as soon as the last one is answered."""
    tally = Tally()
    async with _connections(target, tally, connections, lambda one: one.send(next(requests))) as opened:
        for connection in opened:
            connection.send(next(requests))
        yield tally


@asynccontextmanager
async def open_streams(target: Target, request: bytes, count: int) -> AsyncIterator[tuple[Tally, int]]:
    """Many streams at once. With the tally comes how many of them flowed before time was up."""
    tally = Tally()
    async with _connections(target, tally, count, lambda _: None) as opened:
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                await _start(opened, request)
        yield tally, sum(connection.busy and connection.first_byte_at > 0 for connection in opened)


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds from sending a request to the first and the last byte of its answer's body."""

    first_byte_s: float
    last_byte_s: float


class FixedRate:
    """The same request, whether or not earlier ones are answered. Connections are kept and reused."""

    def __init__(self, target: Target, request: bytes):
        self.samples: list[Sample] = []
        self.tally = Tally()
        self.sent = 0
        self._target = target
        self._request = request
        self._idle: list[Connection] = []
        self._opened: list[Connection] = []

    async def send(self) -> None:
        self.sent += 1
        connection = self._idle.pop() if self._idle else await self._open()
        connection.send(self._request)

    def forget(self) -> None:
        """What was measured so far."""
        self.samples.clear()

    @property
    def unanswered(self) -> int:
        return self.sent - self.tally.answers

    def close(self) -> None:
        for connection in self._opened:
            connection.close()

    async def _open(self) -> Connection:
        connection = await Connection.open(self._target, self.tally, self._answered)
        self._opened.append(connection)
        return connection

    def _answered(self, connection: Connection) -> None:
        sent_at = connection.sent_at
        self.samples.append(Sample(connection.first_byte_at - sent_at, time.perf_counter() - sent_at))
        self._idle.append(connection)


async def alternate(measured: FixedRate, baseline: FixedRate, rate: float, warm_s: float, seconds: float) -> None:
    """`rate` requests per second to each, in turns at even distances, so that both meet the machine in one mood."""
    start = time.perf_counter()
    for number, one in enumerate(itertools.cycle((measured, baseline))):
        due_s = number / (2 * rate)
        if due_s > warm_s + seconds:
            break
        if number == round(warm_s * 2 * rate):
            measured.forget()
            baseline.forget()
        await asyncio.sleep(start + due_s - time.perf_counter())
        await one.send()
    await _until(lambda: not (measured.unanswered or baseline.unanswered), DRAIN_S)


async def _start(connections: list[Connection], request: bytes) -> None:
    """Send it on each, no faster than they begin to flow: who is slow is not buried for what is measured later."""
    sent: list[Connection] = []
    for connection in connections:
        await _until(lambda: sum(not one.first_byte_at for one in sent) < MAX_WAITING, READY_S)
        connection.send(request)
        sent.append(connection)
        await asyncio.sleep(1 / RAMP_PER_S)
    await _until(lambda: all(one.first_byte_at for one in sent), READY_S)


@asynccontextmanager
async def _connections(
    target: Target, tally: Tally, count: int, answered: Callable[[Connection], None]
) -> AsyncIterator[list[Connection]]:
    opened: list[Connection] = []
    try:
        for _ in range(count):
            opened.append(await Connection.open(target, tally, answered))  # noqa: PERF401 - what failed half way is closed
        yield opened
    finally:
        for connection in opened:
            connection.close()


async def _until(met: Callable[[], bool], timeout_s: float) -> None:
    """Returns when it is met, or time is up."""
    for _ in range(round(timeout_s / POLL_S)):
        if met():
            return
        await asyncio.sleep(POLL_S)
