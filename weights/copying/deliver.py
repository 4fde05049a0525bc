"""Making a release exist at one store: what lacks is sent or copied there, read back, and the manifest written last."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clusters.storage import Verify
from weights.copying.journal import Journal
from weights.copying.pace import Pace, Progress
from weights.copying.plan import needs
from weights.copying.transfer import Origin, check, send
from weights.errors import AccessDenied, Corrupt, NotFound, StoreError
from weights.manifest import File, Manifest
from weights.parallel import Lanes, for_each
from weights.releases.registry import publish, release_prefix, stored_files
from weights.store import Store

FILE_ATTEMPTS = 3
"""Another process may complete, replace or delete the same object meanwhile."""


@dataclass(frozen=True)
class Terms:
    """How bytes move to one store. `lanes` bound what lies in memory: a part each."""

    lanes: Lanes
    pace: Pace
    journal: Journal
    verify: Verify
    progress: Progress


@dataclass(frozen=True)
class Delivery:
    """What it took to have a release at a store."""

    sent: tuple[File, ...]
    cloned: tuple[File, ...]
    kept: tuple[File, ...]
    size: int
    """Bytes sent, which is less than those of `sent` where parts had landed before."""


Moved = Callable[[int], None]
NOTHING_ELSEWHERE: Mapping[str, str] = {}


def deliver(
    manifest: Manifest,
    origin: Origin,
    store: Store,
    site: str,
    terms: Terms,
    clones: Mapping[str, str] = NOTHING_ELSEWHERE,
) -> Delivery:
    """Makes the release exist at the store. `clones` maps paths to keys of the store that hold the same bytes.

    Raises WeightsError; what landed stays, and a release that is not whole has no marker.
    """
    held = {item.key: item.size for item in stored_files(store, manifest.model, manifest.release)}
    todo = needs(manifest, held, clones)
    # Bytes that are sent are moved twice: there, and back to be read.
    terms.progress.begin(site, todo.size + sum(file.size for file in todo.copy))
    job = _Job(manifest, origin, store, site, terms, clones)
    brought = for_each(job.bring, todo.copy + todo.clone, terms.lanes.count)
    mended = for_each(job.vouch, todo.verify, terms.lanes.count)
    if todo.publish:
        _require_all(manifest, store)
        terms.pace.retried(lambda: publish(store, manifest))
    work = (*brought, *mended)
    return Delivery(
        sent=tuple(done.file for done in work if done.how == "sent"),
        cloned=tuple(done.file for done in work if done.how == "cloned"),
        kept=todo.keep + tuple(done.file for done in mended if done.how == "kept"),
        size=sum(done.size for done in work),
    )


def _require_all(manifest: Manifest, store: Store) -> None:
    """Somebody may have removed meanwhile what was right."""
    there = {item.key: item.size for item in stored_files(store, manifest.model, manifest.release)}
    for file in manifest.files:
        if there.get(file.path) != file.size:
            operation = f"publish release {manifest.release} of {manifest.model}"
            raise StoreError(store.url, operation, f"{file.path} was removed or replaced meanwhile; run it again")


@dataclass(frozen=True)
class _Done:
    file: File
    how: str
    size: int = 0


@dataclass(frozen=True)
class _Job:
    manifest: Manifest
    origin: Origin
    store: Store
    site: str
    terms: Terms
    clones: Mapping[str, str]

    def vouch(self, file: File) -> _Done:
        """A file that lies there without a marker is believed after it was read."""
        told = _Told(self.terms.progress, self.site)
        try:
            self._check(file, told.moved)
        except Corrupt:
            told.take_back()
            return self.bring(file)
        return _Done(file, "kept")

    def bring(self, file: File) -> _Done:
        for attempt in range(1, FILE_ATTEMPTS + 1):
            told = _Told(self.terms.progress, self.site)
            try:
                done = self._place(file, told.moved, clone=attempt == 1)
                self._check(file, told.moved)
            except Corrupt as error:
                if error.place != self.store.url or attempt == FILE_ATTEMPTS:
                    raise
                self.store.delete(self._key(file))
                told.take_back()
            except (AccessDenied, NotFound):
                raise
            except StoreError:
                if attempt == FILE_ATTEMPTS:
                    raise
                told.take_back()
            else:
                return done
        raise AssertionError("unreachable")

    def _place(self, file: File, moved: Moved, clone: bool) -> _Done:
        terms, key = self.terms, self._key(file)
        if clone and file.path in self.clones:
            try:
                terms.pace.retried(lambda: self.store.copy(self.clones[file.path], key, file.size))
                return _Done(file, "cloned")
            except NotFound:  # removed since it was listed
                pass
        size = send(file, self.origin, self.store, key, terms.lanes, terms.pace, terms.journal, moved)
        return _Done(file, "sent", size)

    def _check(self, file: File, moved: Moved) -> None:
        terms = self.terms
        check(file, self.store, self._key(file), terms.verify, terms.lanes, terms.pace, moved)

    def _key(self, file: File) -> str:
        return release_prefix(self.manifest.model, self.manifest.release) + file.path


class _Told:
    """What progress was told of one file."""

    def __init__(self, progress: Progress, site: str) -> None:
        self._progress = progress
        self._site = site
        self._size = 0
        self._lock = threading.Lock()

    def moved(self, size: int) -> None:
        with self._lock:
            self._size += size
        self._progress.advance(self._site, size)

    def take_back(self) -> None:
        self._progress.advance(self._site, -self._size)
        self._size = 0
