"""What is wrong with a release at a store, and putting that aside, so that the next copy brings just it again."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from clusters.storage import Verify
from weights.copying.pace import Pace
from weights.copying.transfer import check
from weights.errors import Corrupt
from weights.manifest import MANIFEST, File, Manifest
from weights.parallel import Lanes, for_each
from weights.releases.registry import release_prefix, stored_files, unpublish
from weights.store import Store

QUARANTINE = "quarantine/"


def verify_release(
    store: Store, manifest: Manifest, how: Verify, lanes: Lanes, pace: Pace, moved: Callable[[int], None]
) -> tuple[Corrupt, ...]:
    """Every file of a release at a store that is not as the manifest has it, is missing, or is not in the manifest.

    Raises what keeps it from looking: StoreError, Stalled.
    """
    prefix = release_prefix(manifest.model, manifest.release)

    def wrong(file: File) -> Corrupt | None:
        try:
            check(file, store, prefix + file.path, how, lanes, pace, moved)
        except Corrupt as error:
            return error
        return None

    known = {MANIFEST, *(file.path for file in manifest.files)}
    strangers = (item.key for item in stored_files(store, manifest.model, manifest.release) if item.key not in known)
    # An engine that streams a release loads what lies there, in the manifest or not.
    extra = tuple(Corrupt(path, store.url, "no file of the release has this name") for path in sorted(strangers))
    return tuple(error for error in for_each(wrong, manifest.files, lanes.count) if error) + extra


def quarantine(store: Store, manifest: Manifest, corrupt: Iterable[Corrupt], now: float) -> None:
    """Puts corrupt files of a release aside, to be looked at. The release stops to exist at the store first.

    `now` is in seconds since the epoch.
    """
    unpublish(store, manifest.model, manifest.release)
    prefix = release_prefix(manifest.model, manifest.release)
    aside = f"{QUARANTINE}{manifest.model}/{manifest.release}/{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}/"
    for path in sorted({error.file for error in corrupt}):
        stored = store.find(prefix + path)
        if stored is not None:
            store.copy(stored.key, aside + path, stored.size)
            store.delete(stored.key)
