"""Where one release lies in a node's cache, and who may touch it there.

<cache>/<model>/<release>/          complete and verified: its manifest.json is written last
<cache>/<model>/<release>.partial/  a fetch under way, or what one that was cut short left
<cache>/<model>/<release>.caches/   what engines compiled for it
<cache>/<model>/<release>.lock      held by who fetches or removes it; its mtime is when the latest fetch began
<cache>/<model>/<release>.use       held, shared, by every process that has it loaded; its mtime is its latest use
<cache>/<model>/.trash-*            on its way out

Locks end with their holders, even killed ones. Their files stay: to remove one is to have two locks of one name.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from weights.releases.registry import RELEASE_ID

PARTIAL = ".partial"
CACHES = ".caches"
TRASH = ".trash-"


@dataclass(frozen=True)
class Slot:
    """The place of one release of a model."""

    cache_dir: Path
    model: str
    release: str

    @property
    def home(self) -> Path:
        return self.cache_dir / self.model

    @property
    def complete(self) -> Path:
        return self.home / self.release

    @property
    def partial(self) -> Path:
        return self._beside(PARTIAL)

    @property
    def caches(self) -> Path:
        return self._beside(CACHES)

    @property
    def fetch_begun(self) -> float:
        """Of the latest one, in seconds since the epoch."""
        return _mtime(self._beside(".lock"))

    @property
    def used_at(self) -> float:
        """Seconds since the epoch; 0 when nobody knows."""
        return _mtime(self._beside(".use"))

    def hold(self) -> int:
        """Nothing evicts the release until this descriptor is closed or its process ends. To be called before `fetch`,
        so that there is no moment in between."""
        with _touched(self._beside(".use")) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return os.dup(file.fileno())

    def touch(self) -> None:
        """It is used now."""
        _touched(self._beside(".use")).close()

    def fetching(self) -> AbstractContextManager[None]:
        """Alone among all fetches of this release on this node; waits for its turn."""
        return locked(self._beside(".lock"))

    @contextmanager
    def unclaimed(self) -> Iterator[bool]:
        """Whether nobody fetches or uses it; and if so, nobody begins to meanwhile."""
        with _tried(self._beside(".lock")) as unfetched, _tried(self._beside(".use")) as unused:
            yield unfetched and unused

    def is_fetched(self) -> bool:
        """Whether somebody fetches it now."""
        with _tried(self._beside(".lock")) as unfetched:
            return not unfetched

    def is_used(self) -> bool:
        """Whether somebody has it loaded now."""
        with _tried(self._beside(".use")) as unused:
            return not unused

    def discard(self, *paths: Path) -> None:
        """Removes directories of this release: at once for all who look, and the bytes after that."""
        for path in paths:
            trash = self.home / f"{TRASH}{secrets.token_hex(8)}"
            try:
                path.rename(trash)
            except FileNotFoundError:
                continue
            shutil.rmtree(trash, ignore_errors=True)

    def _beside(self, suffix: str) -> Path:
        return self.home / (self.release + suffix)


def slots(cache_dir: Path) -> Iterator[Slot]:
    """Every release of which anything lies there, in no particular order."""
    for home in _listed(cache_dir):
        if not home.name.startswith("."):
            found = {name[:12] for name in (path.name for path in _listed(home)) if _is_of_a_release(name)}
            yield from (Slot(cache_dir, home.name, release) for release in found)


def sweep(cache_dir: Path) -> None:
    """Removes what killed processes had begun to remove."""
    for trash in cache_dir.glob(f"*/{TRASH}*"):
        shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """An exclusive lock; waits for its turn."""
    with _touched(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _touched(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    os.utime(file.fileno())
    return file


@contextmanager
def _tried(path: Path) -> Iterator[bool]:
    """Whether the lock could be had; then it is held meanwhile."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_of_a_release(name: str) -> bool:
    return bool(RELEASE_ID.fullmatch(name[:12])) and name[12:] in ("", PARTIAL, CACHES)


def _listed(directory: Path) -> list[Path]:
    """Nothing where there is no directory."""
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
