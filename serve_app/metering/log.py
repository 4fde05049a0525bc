"""The request log: one JSON line per request. Whatever the disk does, requests don't notice."""

import logging
import queue
import threading
import time
from collections.abc import Callable

import msgspec

from serve_app.metering.log_files import LogFiles
from serve_app.metering.record import Record

BLOCK_BYTES = 2**18
MAX_BLOCKS = 16
"""Waiting for the disk: with the one being filled and the one being written, the memory that a log may take."""
WARN_EVERY_S = 60.0
CLOSE_S = 5.0

logger = logging.getLogger(__name__)

_Block = tuple[bytearray, int]
"""Lines, and how many."""


class RequestLog:
    """Lines are gathered on the event loop's thread, which calls every method, and written by a thread of its own."""

    def __init__(self, files: LogFiles, clock: Callable[[], float] = time.monotonic):
        self._encoder = msgspec.json.Encoder()
        self._lines = bytearray()
        self._count = 0
        self._lost = 0
        self._lost_told = 0
        self._blocks: queue.Queue[_Block | None] = queue.Queue(MAX_BLOCKS)
        self._writer = _Writer(files, self._blocks, clock)
        self._writer.start()

    def append(self, record: Record) -> None:
        """Never waits, never raises: a record that there is no room for is counted as lost."""
        if len(self._lines) >= BLOCK_BYTES and not self._hand_over():
            self._lost += 1
            return
        self._encoder.encode_into(record, self._lines, -1)
        self._lines += b"\n"
        self._count += 1

    def flush(self) -> int:
        """To be called every second: hand over what is there. Returns the records lost since the last call."""
        if self._count and self._blocks.empty():
            self._hand_over()
        lost = self._lost + self._writer.lost
        new, self._lost_told = lost - self._lost_told, lost
        return new

    def close(self) -> None:
        """Wait a few seconds for the disk, then leave the rest."""
        deadline = time.monotonic() + CLOSE_S
        try:
            if self._count:
                self._blocks.put((self._lines, self._count), timeout=CLOSE_S)
            self._blocks.put(None, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            logger.warning("the request log was closed while its disk did not answer")
        self._writer.join(max(0.0, deadline - time.monotonic()))

    def _hand_over(self) -> bool:
        try:
            self._blocks.put_nowait((self._lines, self._count))
        except queue.Full:
            return False
        self._lines, self._count = bytearray(), 0
        return True


class _Writer(threading.Thread):
    """`lost` is written by this thread alone."""

    def __init__(self, files: LogFiles, blocks: "queue.Queue[_Block | None]", clock: Callable[[], float]):
        super().__init__(name="request log", daemon=True)  # a disk that hangs must not keep the process alive
        self.lost = 0
        self._files = files
        self._blocks = blocks
        self._clock = clock
        self._warned_at = float("-inf")

    def run(self) -> None:
        while block := self._blocks.get():
            lines, count = block
            try:
                self._files.write(lines)
            except OSError as error:
                self.lost += count
                self._warn(error)
        try:
            self._files.close()
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if self._clock() - self._warned_at >= WARN_EVERY_S:
            self._warned_at = self._clock()
            logger.warning("the request log cannot be written, %d records are lost so far: %s", self.lost, error)
