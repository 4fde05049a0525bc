"""How the fake engine writes a stream: as fast as the socket takes it, or at a pace."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from bench.router.wire import StreamBytes

BATCH = 4
"""Events per write of a stream without a pace: a kilobyte, as when an engine is ahead of its reader."""
TICK_S = 0.005


class Stream:
    """One answer as it is written. It pauses while the reader is behind, so its memory has a bound."""

    def __init__(self, transport: asyncio.Transport, content: StreamBytes, pace: int, on_end: Callable[[], None]):
        self.pace = pace
        self.ended = False
        self._transport = transport
        self._content = content
        self._left = content.count
        self._on_end = on_end
        self._paused = False
        self._loop = asyncio.get_running_loop()

    def start(self, pacer: "Pacer") -> None:
        self._transport.write(self._content.opening)
        if self.pace:
            pacer.add(self)
        else:
            self._rush()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if not self.pace:
            self._rush()

    def step(self) -> None:
        """One event, unless the reader is behind: then this turn is left out."""
        if not self._paused:
            self._advance(1)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._on_end()

    def _rush(self) -> None:
        """One turn of many, so that streams take turns, and each write is a system call of its own."""
        if not (self._paused or self.ended):
            self._advance(BATCH)
            self._loop.call_soon(self._rush)

    def _advance(self, count: int) -> None:
        count = min(count, self._left)
        turn = self._left % len(self._content.events)
        data = b"".join((self._content.events[turn:] + self._content.events[:turn])[:count])
        self._left -= count
        if self._left:
            self._transport.write(data)
        else:
            self._transport.write(data + self._content.closing)
            self.end()


class Pacer:
    """Lets every paced stream write one event when it is due."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: defaultdict[int, list[Stream]] = defaultdict(list)
        self._tick = self._now()
        self._turn()

    def add(self, stream: Stream) -> None:
        self._due[self._tick + max(1, round(1 / stream.pace / TICK_S))].append(stream)

    def _turn(self) -> None:
        while self._tick < self._now():
            self._tick += 1
            for stream in self._due.pop(self._tick, ()):
                if not stream.ended:
                    stream.step()
                    self.add(stream)
        self._loop.call_later(TICK_S, self._turn)

    def _now(self) -> int:
        return int(self._loop.time() / TICK_S)
