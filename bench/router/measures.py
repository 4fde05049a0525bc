"""The measurements of a contender that runs already."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from bench.router import requests
from bench.router.connection import Tally
from bench.router.figures import Figures, Latency, OpenStreams, Window
from bench.router.load import READY_S, FixedRate, alternate, closed_loop, open_streams
from bench.router.requests import Target
from bench.router.stage import Running
from bench.usage import Usage

CONNECTIONS = 64
WARM_S = 1.0
SETTLE_S = 30.0
QUIET_S = 0.5
QUIET_SHARE = 0.2
"""Of its core, over `QUIET_S`: then it has settled."""
RATE = 100.0
"""Requests per second where latency is measured."""
FLAT_OUT_TOKENS = 2000
"""Of each stream that is written as fast as it is read."""
OPEN_STREAMS = 1000
OPEN_PACE = 10
"""Tokens per second of each open stream."""
SPARE_S = 3.0
"""That open streams last longer than they are needed; not much, since not every contender ends abandoned ones."""


async def measure(name: str, running: Running, direct: Target, seconds: float) -> Figures:
    """Light loads come first, so that memory is measured before heavy ones have enlarged it."""
    target = running.target
    routed = target != direct
    return Figures(
        name,
        latency=await _latency(target, direct, seconds) if routed else None,
        first_byte=await _first_byte(target, direct, seconds) if routed else None,
        open_streams=await _open_streams(running, 3 * seconds),
        short=await _closed_loop(running, requests.short(target), seconds),
        conversations=await _closed_loop(running, requests.conversations(target), seconds),
        flat_out=await _closed_loop(running, itertools.repeat(requests.stream(target, FLAT_OUT_TOKENS)), seconds),
    )


async def _latency(target: Target, direct: Target, seconds: float) -> Latency:
    measured, baseline = (FixedRate(one, next(requests.short(one))) for one in (target, direct))
    await _run_in_turns(measured, baseline, seconds)
    return Latency.of(
        [sample.last_byte_s for sample in measured.samples],
        [sample.last_byte_s for sample in baseline.samples],
        measured.unanswered,
    )


async def _first_byte(target: Target, direct: Target, seconds: float) -> Latency:
    measured, baseline = (
        FixedRate(one, requests.stream(one, tokens=8, pace=50, usage=True)) for one in (target, direct)
    )
    await _run_in_turns(measured, baseline, seconds)
    return Latency.of(
        [sample.first_byte_s for sample in measured.samples],
        [sample.first_byte_s for sample in baseline.samples],
        measured.unanswered,
    )


async def _run_in_turns(measured: FixedRate, baseline: FixedRate, seconds: float) -> None:
    with closing(measured), closing(baseline):
        await alternate(measured, baseline, RATE, WARM_S, seconds)


async def _open_streams(running: Running, seconds: float) -> OpenStreams:
    tokens = round(OPEN_PACE * (READY_S + seconds + SPARE_S))
    request = requests.stream(running.target, tokens, OPEN_PACE)
    idle_bytes = Usage.of(running.processes).rss_bytes
    async with open_streams(running.target, request, OPEN_STREAMS) as (tally, opened):
        window = await _window(running, tally, seconds)
        return OpenStreams(window, OPEN_STREAMS, opened, Usage.of(running.processes).rss_bytes - idle_bytes)


async def _settle(running: Running) -> None:
    """Until it has done with what came before, or time is up: some are buried under open streams."""
    for _ in range(round(SETTLE_S / QUIET_S)):
        cpu_s = Usage.of(running.processes).cpu_s
        await asyncio.sleep(QUIET_S)
        if Usage.of(running.processes).cpu_s - cpu_s < QUIET_S * QUIET_SHARE:
            return


async def _closed_loop(running: Running, load: Iterator[bytes], seconds: float) -> Window:
    await _settle(running)
    async with closed_loop(running.target, load, CONNECTIONS) as tally:
        await asyncio.sleep(WARM_S)
        return await _window(running, tally, seconds)


async def _window(running: Running, tally: Tally, seconds: float) -> Window:
    # Ray ends idle workers when it likes; one that ends within the window is left out of it.
    before, started = replace(tally), time.perf_counter()
    cpu_s, rest_cpu_s = Usage.of(running.processes).cpu_s, Usage.of(running.rest).cpu_s
    await asyncio.sleep(seconds)
    return Window(
        wall_s=time.perf_counter() - started,
        cpu_s=Usage.of(running.processes).cpu_s - cpu_s,
        rest_cpu_s=max(0.0, Usage.of(running.rest).cpu_s - rest_cpu_s),
        answers=tally.answers - before.answers,
        failures=tally.failures - before.failures,
        events=tally.events - before.events,
    )
