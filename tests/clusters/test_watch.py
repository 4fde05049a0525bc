"""The watch, by a clock that tests move."""

import asyncio
import json
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from clusters.state import FleetState
from clusters.watch import FleetWatch, StateUnreadable


class FakeClock:
    """Time passes only when a test says so."""

    def __init__(self) -> None:
        self._now = 100.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        woken = asyncio.Event()
        self._sleepers.append((self._now + seconds, woken))
        await woken.wait()

    def take(self, seconds: float) -> None:
        """Something takes this long."""
        self._now += seconds

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything that is due happen."""
        await _settle()
        self._now += seconds
        due = [woken for at, woken in self._sleepers if at <= self._now]
        self._sleepers = [(at, woken) for at, woken in self._sleepers if at > self._now]
        for woken in due:
            woken.set()
        await _settle()


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class FakeReader:
    """Answers with what a test put there: bytes, an error, or nothing at all."""

    def __init__(self, clock: FakeClock, **answers: bytes | Exception | None):
        self.answers = answers
        self._clock = clock

    async def read(self, site: str) -> bytes:
        answer = self.answers[site]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        self._clock.take(0.25)
        assert isinstance(answer, bytes)
        return answer


def state(site: str, **more: Any) -> bytes:
    return json.dumps({"site": site, "at": 1.0, **more}).encode()


def watch(clock: FakeClock, reader: FakeReader) -> FleetWatch:
    return FleetWatch(tuple(reader.answers), reader, interval_s=1, timeout_s=0.01, clock=clock, rng=random.Random(1))


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_entering_reads_every_site_once() -> None:
    async def test() -> None:
        clock = FakeClock()
        watching = watch(clock, FakeReader(clock, east=state("east"), west=StateUnreadable("no connection")))
        assert watching.state.observations["east"].error == "not read yet"
        async with watching:
            seen = watching.state.observations
            assert (seen["east"].error, seen["east"].read_at, seen["east"].round_trip_s) == ("", 100.25, 0.25)
            assert (seen["west"].error, seen["west"].read_at, seen["west"].state) == ("no connection", None, None)

    run(test())


def test_a_failed_reading_keeps_the_last_state_with_its_age() -> None:
    async def test() -> None:
        clock = FakeClock()
        reader = FakeReader(clock, east=state("east"))
        async with watch(clock, reader) as watching:
            good = watching.state.observations["east"]
            reader.answers["east"] = StateUnreadable("no connection")
            await clock.advance(2)
            bad = watching.state.observations["east"]
            assert (bad.state, bad.read_at, bad.error) == (good.state, good.read_at, "no connection")
            reader.answers["east"] = state("east", placements=[])
            await clock.advance(2)
            again = watching.state.observations["east"]
            assert (again.error, again.read_at) == ("", 104.5)

    run(test())


def test_a_snapshot_never_changes() -> None:
    async def test() -> None:
        clock = FakeClock()
        reader = FakeReader(clock, east=state("east"), west=state("west"))
        async with watch(clock, reader) as watching:
            before: FleetState = watching.state
            copy = before.model_copy(deep=True)
            reader.answers["east"] = StateUnreadable("gone")
            await clock.advance(2)
            assert watching.state is not before
            assert before == copy

    run(test())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"{", "not valid"),
        (b"{}", "not valid"),
        (b'{"site": "east", "at": 1, "placements": [{"replicas": -1}]}', "not valid"),
        (state("west"), "answers as site 'west'"),
        (None, "no state within"),
    ],
)
def test_what_is_not_a_state_of_the_site(answer: bytes | None, error: str) -> None:
    async def test() -> None:
        clock = FakeClock()
        async with watch(clock, FakeReader(clock, east=answer)) as watching:
            assert error in watching.state.observations["east"].error

    run(test())


def test_a_newer_site_may_say_more() -> None:
    async def test() -> None:
        clock = FakeClock()
        async with watch(clock, FakeReader(clock, east=state("east", weather="fine"))) as watching:
            assert watching.state.observations["east"].error == ""

    run(test())


def test_readings_are_jittered_and_one_hung_site_holds_up_no_other() -> None:
    async def test() -> None:
        clock = FakeClock()
        reader = FakeReader(clock, east=state("east"), west=state("west"))
        async with watch(clock, reader) as watching:
            reader.answers["west"] = None
            for _ in range(5):
                await clock.advance(1.2)
            assert len(clock.slept) > 5
            assert len(set(clock.slept)) == len(clock.slept)
            assert all(0.9 <= seconds <= 1.1 for seconds in clock.slept)
            read_at = watching.state.observations["east"].read_at
            assert read_at is not None
            assert clock.now() - read_at < 1.5

    run(test())


def test_a_watch_that_died_is_noticed() -> None:
    async def test() -> None:
        clock = FakeClock()
        reader = FakeReader(clock, east=state("east"))
        async with watch(clock, reader) as watching:
            watching.check()
            reader.answers["east"] = ZeroDivisionError()
            await clock.advance(2)
            with pytest.raises(RuntimeError, match="watch east has ended"):
                watching.check()

    run(test())
