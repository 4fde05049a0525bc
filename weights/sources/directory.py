"""A directory of this machine as a source. Symbolic links to files are replaced by what they point to."""

import os
from collections.abc import Iterator
from pathlib import Path

from weights.errors import SourceError
from weights.sources.source import SourceFile, belongs, usable
from weights.store import PIECE


class DirectorySource:
    """Its files are listed once; what changes afterwards is found out when its bytes are read."""

    revision = None
    local = True

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory
        self.files = usable(str(directory), _found(directory))

    def read(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        try:
            with (self._directory / path).open("rb", buffering=0) as file:
                while piece := os.pread(file.fileno(), min(PIECE, end - offset), offset):
                    yield piece
                    offset += len(piece)
        except OSError as error:
            raise SourceError(f"{self._directory / path} can't be read: {error}") from error


def _found(directory: Path) -> Iterator[SourceFile]:
    try:
        if not directory.is_dir():
            raise SourceError(f"{directory} is not a directory")
        for parent, below, names in os.walk(directory, onerror=_raise):
            below[:] = [name for name in below if belongs(name)]
            for path in (Path(parent, name) for name in names if belongs(name)):
                if not path.is_file():
                    raise SourceError(f"{path} is neither a file nor a link to one")
                yield SourceFile(path.relative_to(directory).as_posix(), path.stat().st_size)
            for path in (Path(parent, name) for name in below):
                if path.is_symlink():
                    raise SourceError(f"{path} is a link to a directory: links are followed for files only")
    except OSError as error:
        raise SourceError(f"{directory} can't be read: {error}") from error


def _raise(error: OSError) -> None:
    raise error
