"""Append-only files, bounded in size and number: `requests-<pid>-<n>.jsonl`, with `.part` behind it while written.

The directory is this machine's own: files of processes that are gone from it are pruned along with our own.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

NAME = re.compile(r"requests-(\d+)-(\d+)\.jsonl(\.part)?")
PART = ".part"
MODE = 0o640


@dataclass(frozen=True, slots=True)
class _Open:
    """The file that is written now."""

    path: Path
    descriptor: int


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    pid: int
    n: int
    changed: float

    @classmethod
    def at(cls, path: Path) -> Self | None:
        named = NAME.fullmatch(path.name)
        try:
            return cls(path, int(named[1]), int(named[2]), path.stat().st_mtime) if named else None
        except FileNotFoundError:  # pruned by another replica meanwhile
            return None


class LogFiles:
    """For one thread. Every method may raise OSError, after which the next call starts anew."""

    def __init__(self, directory: Path, *, file_bytes: int, files: int):
        self._directory = directory
        self._file_bytes = file_bytes
        self._files = files
        self._pid = os.getpid()
        self._size = 0
        self._open: _Open | None = None

    def write(self, lines: bytes | bytearray) -> None:
        """All of the lines in one file, or, with an OSError, none of them."""
        if self._size and self._size + len(lines) > self._file_bytes:
            self.close()
        self._open = self._open or self._start()
        try:
            _write_all(self._open.descriptor, lines)
        except OSError:
            os.ftruncate(self._open.descriptor, self._size)  # no half line before the next one
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Give the file its final name."""
        if self._open is None:
            return
        done, self._open, self._size = self._open, None, 0
        os.close(done.descriptor)
        done.path.rename(done.path.with_suffix(""))

    def _start(self) -> _Open:
        self._directory.mkdir(parents=True, exist_ok=True)
        kept = [file for path in self._directory.iterdir() if (file := _Kept.at(path))]
        self._prune(kept)
        n = max((file.n for file in kept if file.pid == self._pid), default=-1) + 1
        path = self._directory / f"requests-{self._pid}-{n}.jsonl{PART}"
        return _Open(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, MODE))

    def _prune(self, kept: list[_Kept]) -> None:
        """Leave room for one more."""
        ours = [file for file in kept if file.pid == self._pid or not psutil.pid_exists(file.pid)]
        ours.sort(key=lambda file: (file.changed, file.n))
        for file in ours[: max(0, len(ours) - self._files + 1)]:
            file.path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes | bytearray) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
