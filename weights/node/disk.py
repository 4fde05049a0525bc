"""The files of a release on a node's disk: room for them, their parts, and what of them was ever written."""

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from weights.manifest import File, Part
from weights.store import PIECE

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
BLOCK = 4096
WRITEBACK = 2
"""SYNC_FILE_RANGE_WRITE: begin to write, and wait for nothing."""
_libc = ctypes.CDLL(None, use_errno=True)


def blocks(files: Iterable[File]) -> int:
    """Bytes of the disk that the files take."""
    return sum(-(-file.size // BLOCK) * BLOCK for file in files)


def preallocate(directory: Path, files: Iterable[File]) -> None:
    """Each file with its size and all of its blocks, so that a full disk shows before the first byte came. What was
    written before stays."""
    directory.mkdir(exist_ok=True)
    for file in files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
            os.ftruncate(descriptor, file.size)
            # Not twice: on some file systems that makes what was never written look as if it had been.
            if os.fstat(descriptor).st_blocks * 512 < file.size:
                os.posix_fallocate(descriptor, 0, file.size)


def write_parts(descriptor: int, parts: Sequence[Part], pieces: Iterator[bytes]) -> Iterator[bool]:
    """Writes consecutive parts as their bytes come; of each, whether it is what it should be. Bytes that end too early
    make all that is left wrong."""
    rest = memoryview(b"")
    for part in parts:
        hasher, at, end = blake3(), part.offset, part.offset + part.length
        while at < end:
            if not rest:
                piece = next(pieces, None)
                if piece is None:
                    break
                rest = memoryview(piece)
            now, rest = rest[: end - at], rest[end - at :]
            hasher.update(now)
            _write(descriptor, now, at)
            at += len(now)
        # Else all of it waits for the fsync at the end, and the disk is idle until then.
        _libc.sync_file_range(descriptor, ctypes.c_int64(part.offset), ctypes.c_int64(part.length), WRITEBACK)
        yield at == end and hasher.hexdigest() == part.digest


def has_part(descriptor: int, part: Part) -> bool:
    """Whether the disk holds it, whoever wrote it. What never was written is told without reading."""
    end = part.offset + part.length
    try:
        first = os.lseek(descriptor, part.offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data from there on
            raise
        return False
    if first > part.offset or os.lseek(descriptor, part.offset, os.SEEK_HOLE) < end:
        return False
    hasher = blake3()
    for at in range(part.offset, end, PIECE):
        hasher.update(os.pread(descriptor, min(PIECE, end - at), at))
    return hasher.hexdigest() == part.digest


def written_bytes(path: Path) -> int:
    """Of a file that may have been preallocated."""
    written = end = 0
    with opened(path, os.O_RDONLY) as descriptor:
        size = os.fstat(descriptor).st_size
        while end < size:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            written += end - start
    return written


def allocated_bytes(*directories: Path) -> int:
    """What the disk would have back; 0 of what is not there, or goes meanwhile."""
    total = 0
    for path in files_below(*directories):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def files_below(*directories: Path) -> Iterator[Path]:
    """Every file, in no particular order; none of what is not there."""
    for top in directories:
        for directory, _, names in os.walk(top):
            yield from (Path(directory, name) for name in names)


def sync(path: Path) -> None:
    """To the disk, so that a power cut after the rename finds what was verified."""
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor, for what Python's file objects can't do."""
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        done = os.pwrite(descriptor, content, offset)
        content, offset = content[done:], offset + done
