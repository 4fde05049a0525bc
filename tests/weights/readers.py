"""Directories as stores that tell what is read from them, stick, spoil it, or fail."""

import os
import random
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from clusters.storage import StoreSpec
from weights.errors import StoreError
from weights.stores.directory import DirectoryStore


def large_files(seed: int) -> dict[str, bytes]:
    """Files of two, five and one parts; the last ones are shorter."""
    sizes = {"model-1.safetensors": 17 * 2**20, "model-2.safetensors": 65 * 2**20 + 1, "config.json": 1000}
    seeded = random.Random(seed)
    return {path: seeded.randbytes(size) for path, size in sizes.items()}


class Seen(DirectoryStore):
    """What is asked of it shows in a file that processes may share."""

    def __init__(self, directory: Path, log: Path) -> None:
        super().__init__(StoreSpec(url=directory.as_uri()), {})
        self._log = log

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        with self._log.open("a") as log:
            log.write(f"{key} {offset} {length}\n")
        return super().read(key, offset, length)


def asked(log: Path) -> list[tuple[str, int, int]]:
    """File, offset and length of every reading that the log shows, but those of manifests."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    readings = [(key.split("/", 3)[3], int(offset), int(length)) for key, offset, length in lines]
    return [reading for reading in readings if reading[0] != "manifest.json"]


class Stuck(Seen):
    """Gives so many pieces of files, and then no more; tells through a pipe that it is so."""

    def __init__(self, directory: Path, log: Path, pieces: int, pipe: Connection) -> None:
        super().__init__(directory, log)
        self._left = pieces
        self._pipe = pipe

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        for piece in super().read(key, offset, length):
            if not key.endswith("manifest.json"):
                if self._left <= 0:
                    self._pipe.send(os.getpid())
                    self._pipe.recv()
                self._left -= 1
            yield piece


class Flipping(Seen):
    """Changes a bit of so many pieces of a file."""

    def __init__(self, directory: Path, log: Path, flipped: str, times: int) -> None:
        super().__init__(directory, log)
        self._flipped = flipped
        self._times = times

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        for piece in super().read(key, offset, length):
            flips = key.endswith(self._flipped) and self._times > 0
            self._times -= flips
            yield bytes([piece[0] ^ 1]) + piece[1:] if flips else piece


class Failing(Seen):
    """Gives so many bytes of a file, and then fails for ever."""

    def __init__(self, directory: Path, log: Path, failing: str, after: int) -> None:
        super().__init__(directory, log)
        self._failing = failing
        self._after = after

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        for piece in super().read(key, offset, length):
            if key.endswith(self._failing):
                self._after -= len(piece)
                if self._after < 0:
                    raise StoreError(self.url, f"read {key}", "the wire was cut")
            yield piece
