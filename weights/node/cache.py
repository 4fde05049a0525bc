"""The releases on a node's disk, from which engines load. One fetch per node, however many replicas ask.

No journal tells how far a fetch came: what lies in a partial directory is believed only after it was hashed again, and
the file system itself knows what was never written.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from weights.copying.pace import SILENT, Pace, Progress
from weights.copying.transfer import REREADS
from weights.errors import Corrupt, InvalidManifest
from weights.manifest import MANIFEST, File, Manifest, Part
from weights.node.disk import (
    FULL,
    allocated_bytes,
    blocks,
    files_below,
    has_part,
    opened,
    preallocate,
    sync,
    write_parts,
    written_bytes,
)
from weights.node.eviction import CacheFull, make_room
from weights.node.slot import Slot, locked, slots
from weights.parallel import Lanes
from weights.releases.registry import load_manifest, release_prefix, replicate_command, stored_files
from weights.store import Store

RUN = 4
"""Parts that one request reads at most."""
ROOM_LOCK = ".room"
"""Held by who evicts and takes the room."""


def fetch(
    store: Store,
    model: str,
    release: str,
    cache_dir: str | os.PathLike[str],
    *,
    site: str | None = None,
    parallel_parts: int = 8,
    cache_bytes: int | None = None,
    keep: frozenset[str] | None = frozenset(),
    progress: Progress = SILENT,
) -> Path:
    """The local directory of a release, fetched from the site's store unless it is there already.

    Waits while another process fetches the same. Evicts what was used least recently to keep the cache within
    `cache_bytes` (None: most of the disk), but nothing of `keep` ("model/release"; None: nothing at all). Raises
    ReleaseMissing, DiskFull, Stalled, StoreError, or Corrupt, which names the file. What was fetched until then is kept
    for the next one.
    """
    slot = Slot(Path(cache_dir), model, release)
    with slot.fetching():
        if not _is_complete(slot.complete):
            slot.discard(slot.complete)
            manifest = load_manifest(store, model, release, replicate_command(model, site))
            with Lanes(parallel_parts) as lanes:
                _Fetch(store, manifest, slot, cache_bytes, keep, lanes, site or model, progress).run()
        slot.touch()
    return slot.complete


@dataclass(frozen=True)
class Cached:
    """A release on this node's disk; `share` of its `size` in bytes is there, 1 only if it was verified whole."""

    model: str
    release: str
    size: int
    share: float


def cached(cache_dir: str | os.PathLike[str]) -> tuple[Cached, ...]:
    """What engines on this node would find, or are about to; reads no file's content."""
    found = []
    for slot in slots(Path(cache_dir)):
        whole = (slot.complete / MANIFEST).is_file()
        sizes, written = 0, 0
        for path in files_below(slot.complete if whole else slot.partial):
            try:
                size = path.stat().st_size
                written += size if whole else written_bytes(path)
            except FileNotFoundError:  # just evicted
                continue
            sizes += size
        if sizes:
            found.append(Cached(slot.model, slot.release, sizes, 1.0 if whole else min(written / sizes, 0.99)))
    return tuple(found)


@dataclass(frozen=True)
class Run:
    """Consecutive parts of a file, which one request reads."""

    file: File
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Fetch:
    """One release on its way to the disk, under its lock."""

    store: Store
    manifest: Manifest
    slot: Slot
    cache_bytes: int | None
    keep: frozenset[str] | None
    lanes: Lanes
    site: str
    progress: Progress

    def run(self) -> None:
        try:
            self._bring(self._preallocated)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # A quota, or somebody else who fills the disk.
            self._bring_at_last()

    def _bring_at_last(self) -> None:
        try:
            self._bring(self._preallocated_after_all_that_may_go)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise self._full(str(error)) from error

    def _bring(self, preallocated: Callable[[], Path]) -> None:
        partial = preallocated()
        missing = tuple(self._missing())
        if missing:
            self._check_sizes()
        self.progress.begin(self.site, sum(part.length for run in missing for part in run.parts))
        pace = Pace(self.store.url)
        self.lanes.for_each(lambda run: self._fetch(run, pace), missing)
        (partial / MANIFEST).write_bytes(self.manifest.to_json())
        self.lanes.for_each(sync, [*files_below(partial), *(Path(directory) for directory, _, _ in os.walk(partial))])
        partial.rename(self.slot.complete)
        sync(self.slot.home)

    def _preallocated(self) -> Path:
        """Raises CacheFull where the room can't be made, and OSError where it turns out not to be there."""
        slot = self.slot
        with locked(slot.cache_dir / ROOM_LOCK):
            needed = max(0, blocks(self.manifest.files) - allocated_bytes(slot.partial))
            eviction = make_room(slot.cache_dir, needed, self.cache_bytes, self.keep, time.time())
            if eviction.lacking:
                raise self._full(eviction.reason)
            preallocate(slot.partial, self.manifest.files)
        return slot.partial

    def _preallocated_after_all_that_may_go(self) -> Path:
        slot = self.slot
        with locked(slot.cache_dir / ROOM_LOCK):
            make_room(slot.cache_dir, sys.maxsize, self.cache_bytes, self.keep, time.time(), enough=False)
            preallocate(slot.partial, self.manifest.files)
        return slot.partial

    def _full(self, why: str) -> CacheFull:
        """What was fetched stays for the next one, unless there is nothing or there never will be room for the rest."""
        size = self.manifest.size
        disk = shutil.disk_usage(self.slot.cache_dir)
        limit = disk.total if self.cache_bytes is None else min(disk.total, self.cache_bytes)
        if size > limit or not any(map(written_bytes, files_below(self.slot.partial))):
            self.slot.discard(self.slot.partial)
        return CacheFull(str(self.slot.cache_dir), size, disk.free, why)

    def _missing(self) -> Iterator[Run]:
        """What the disk does not hold of the release."""
        wanted = [(file, part) for file in self.manifest.files for part in file.layout() if part.length]
        held = self.lanes.for_each(self._holds, wanted)
        lacking = (one for one, is_held in zip(wanted, held, strict=True) if not is_held)
        for _, group in groupby(lacking, key=lambda one: one[0].path):
            of_file = list(group)
            yield from runs_of(of_file[0][0], [part for _, part in of_file])

    def _holds(self, wanted: tuple[File, Part]) -> bool:
        file, part = wanted
        with opened(self.slot.partial / file.path, os.O_RDONLY) as descriptor:
            return has_part(descriptor, part)

    def _check_sizes(self) -> None:
        """Raises Corrupt. What is too short could be read neither in part nor again."""
        stored = {item.key: item.size for item in stored_files(self.store, self.manifest.model, self.manifest.release)}
        for file in self.manifest.files:
            if stored.get(file.path) != file.size:
                raise Corrupt(file.path, self.store.url, f"it has {stored.get(file.path, 'no')} bytes, not {file.size}")

    def _fetch(self, run: Run, pace: Pace) -> None:
        wrong: Sequence[Part] = run.parts
        with opened(self.slot.partial / run.file.path, os.O_WRONLY) as descriptor:
            for _ in range(REREADS):
                wrong = [part for again in runs_of(run.file, wrong) for part in self._read(again, descriptor, pace)]
                if not wrong:
                    return
        raise Corrupt(run.file.path, self.store.url, f"part {wrong[0].number} is not what the manifest says")

    def _read(self, run: Run, descriptor: int, pace: Pace) -> list[Part]:
        """Those parts of the run that came wrong."""
        key = release_prefix(self.manifest.model, self.manifest.release) + run.file.path
        judged: list[bool] = []

        def read() -> None:
            left = run.parts[len(judged) :]
            pieces = pace.pieces(self.store.read(key, left[0].offset, sum(part.length for part in left)))
            for part, right in zip(left, write_parts(descriptor, left, pieces), strict=True):
                judged.append(right)
                if right:
                    self.progress.advance(self.site, part.length)

        pace.retried(read)
        return [part for part, right in zip(run.parts, judged, strict=True) if not right]


def runs_of(file: File, parts: Sequence[Part]) -> Iterator[Run]:
    """Parts of a file, in their order, as runs."""
    run: list[Part] = []
    for part in parts:
        if run and (len(run) == RUN or part.number != run[-1].number + 1):
            yield Run(file, tuple(run))
            run = []
        run.append(part)
    if run:
        yield Run(file, tuple(run))


def _is_complete(directory: Path) -> bool:
    """Cheap: a directory has this name only after every byte was verified, so sizes show what was lost since."""
    try:
        manifest = Manifest.from_json((directory / MANIFEST).read_bytes())
        sizes_match = all((directory / file.path).stat().st_size == file.size for file in manifest.files)
        return sizes_match and manifest.release == directory.name
    except (FileNotFoundError, NotADirectoryError, InvalidManifest):
        return False
