"""Directory stores with something about them: one that tells who reads, and some that fail."""

import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from clusters.storage import StoreSpec
from weights.directory import DirectoryStore
from weights.errors import StoreError


def directory_store(directory: Path) -> DirectoryStore:
    directory.mkdir(exist_ok=True)
    return DirectoryStore(StoreSpec(url=f"file://{directory}"), {})


class CountingStore(DirectoryStore):
    """Appends the key of every read to a file, which processes may share."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str], log: Path) -> None:
        super().__init__(spec, environ)
        self._log = log

    def read(self, key: str, offset: int, length: int) -> bytes:
        with self._log.open("a") as log:
            log.write(f"{key}\n")
        return super().read(key, offset, length)


class StuckStore(DirectoryStore):
    """Never answers a read whose key ends in `stuck_at`; says so through a pipe first."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str], stuck_at: str, pipe: Connection) -> None:
        super().__init__(spec, environ)
        self._stuck_at = stuck_at
        self._pipe = pipe

    def read(self, key: str, offset: int, length: int) -> bytes:
        if key.endswith(self._stuck_at):
            self._pipe.send(os.getpid())
            self._pipe.recv()
        return super().read(key, offset, length)


class FullStore(DirectoryStore):
    """Refuses to write keys that end in `refused`."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str], refused: str) -> None:
        super().__init__(spec, environ)
        self._refused = refused

    def write(self, key: str, content: Path | bytes) -> None:
        if key.endswith(self._refused):
            raise StoreError(self.url, f"write {key}", "quota exceeded")
        super().write(key, content)


class FlippingStore(DirectoryStore):
    """Stores keys that end in `flipped` with one wrong bit."""

    def __init__(self, spec: StoreSpec, environ: Mapping[str, str], flipped: str) -> None:
        super().__init__(spec, environ)
        self._flipped = flipped

    def write(self, key: str, content: Path | bytes) -> None:
        stored = content if isinstance(content, bytes) else content.read_bytes()
        if key.endswith(self._flipped):
            stored = bytes([stored[0] ^ 1]) + stored[1:]
        super().write(key, stored)
