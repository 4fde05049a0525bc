"""What a model is pushed from: a local directory, or a repository of the Hugging Face hub.

A release holds every regular file below the directory, symbolic links replaced by what they point to. Left out is
what tools keep for themselves: names that begin with a dot (`.git`, `.cache`, `.gitattributes`) and `__pycache__`.
Nothing is chosen by suffix: an engine may need any of the rest.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weights.errors import SourceError

HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
HUB_TIMEOUT_S = 30


@dataclass(frozen=True)
class Source:
    """Files to push: `paths` are relative to `directory`, use `/` and are sorted."""

    name: str
    directory: Path
    paths: tuple[str, ...]
    revision: str | None
    """The hub's commit, or None."""


@contextmanager
def open_source(name: str, base: Path) -> Iterator[Source]:
    """A source as a model of fleet.yaml names it; directories are relative to `base`. Raises SourceError."""
    if name.startswith("hf://"):
        with tempfile.TemporaryDirectory(prefix="rayfleet-hub-") as scratch:
            revision = _snapshot(name, Path(scratch))
            yield Source(name, Path(scratch), _paths(Path(scratch)), revision)
    else:
        directory = base / name
        yield Source(name, directory, _paths(directory), None)


def _snapshot(name: str, directory: Path) -> str:
    """Downloads a repository; returns the commit that its revision stood for."""
    match = HUB.fullmatch(name)
    if match is None:
        raise SourceError(f"{name} is not of the form hf://organisation/repository@revision")
    # Half a second to import, and only needed here.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        commit = HfApi().model_info(match["repo"], revision=match["revision"], timeout=HUB_TIMEOUT_S).sha
        snapshot_download(match["repo"], revision=commit, local_dir=directory)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise SourceError(f"{name} can't be read: {error}") from error
    return str(commit)


def _paths(directory: Path) -> tuple[str, ...]:
    found = []
    try:
        if not directory.is_dir():
            raise SourceError(f"{directory} is not a directory")
        for parent, below, names in os.walk(directory, onerror=_raise):
            below[:] = [name for name in below if _belongs(name)]
            for path in (Path(parent, name) for name in names if _belongs(name)):
                if not path.is_file():
                    raise SourceError(f"{path} is neither a file nor a link to one")
                found.append(path.relative_to(directory).as_posix())
            for path in (Path(parent, name) for name in below):
                if path.is_symlink():
                    raise SourceError(f"{path} is a link to a directory: links are followed for files only")
    except OSError as error:
        raise SourceError(f"{directory} can't be read: {error}") from error
    if not found:
        raise SourceError(f"{directory} holds no files")
    return tuple(sorted(found))


def _belongs(name: str) -> bool:
    return not name.startswith(".") and name != "__pycache__"


def _raise(error: OSError) -> None:
    raise error
