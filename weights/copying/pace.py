"""How fast bytes may move, and whether they move at all."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from weights.errors import AccessDenied, NotFound, Stalled, StoreError

ATTEMPTS = 4
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 8.0
TRIP_AFTER = 8
"""Failures in a row, of any operations, after which a store is left alone for this run."""


class Progress(Protocol):
    """Told what a site's store still needs, in bytes; may be called from several threads."""

    def begin(self, site: str, size: int) -> None:
        """`size` more bytes are to be moved or verified for the site."""
        ...

    def advance(self, site: str, size: int) -> None:
        """So many more bytes were; negative when they turned out wrong."""
        ...


class _Silent:
    def begin(self, site: str, size: int) -> None:
        pass

    def advance(self, site: str, size: int) -> None:
        pass


SILENT: Progress = _Silent()
"""For when no one looks."""


class Bandwidth:
    """So many bytes a second for all threads together."""

    def __init__(
        self,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, size: int) -> None:
        """Returns when so many more may move."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + size / self._rate
        self._sleep(self._free_at - now)


class Pace:
    """Of all that moves to or from one store: a bandwidth, a breaker, and a watch for when nothing moves any more."""

    def __init__(
        self,
        place: str,
        bandwidth: Bandwidth | None = None,
        stall_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._place = place
        self._bandwidth = bandwidth
        self._stall_s = stall_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._moved_at = clock()
        self._failures = 0

    def pieces(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces, no faster than they may come."""
        for piece in pieces:
            if self._bandwidth is not None:
                self._bandwidth.take(len(piece))
            self._moved_at = self._clock()
            yield piece

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Work at a store: failures in a row trip a breaker, so that a dead store is not asked for each of ten thousand
        parts. What the store denies is final at once, and so is no failure of the wire."""
        with self._lock:
            if self._failures >= TRIP_AFTER:
                raise StoreError(self._place, "go on", f"{self._failures} operations in a row failed")
        try:
            yield
        except (AccessDenied, NotFound):
            raise
        except StoreError:
            with self._lock:
                self._failures += 1
            raise
        with self._lock:
            self._failures = 0
            self._moved_at = self._clock()

    def retried(self, work: Callable[[], None]) -> None:
        """Does the work, again and again with growing, random pauses where the store failed for no lasting reason.

        Raises Stalled instead of trying again when nothing has moved for too long, in whatever thread.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.watched():
                    work()
                return
            except (AccessDenied, NotFound):
                raise
            except StoreError as error:
                if attempt == ATTEMPTS:
                    raise
                still_s = self._clock() - self._moved_at
                if still_s > self._stall_s:
                    raise Stalled(self._place, still_s) from error
                self._sleep(random.uniform(0.5, 1.0) * min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1)))
