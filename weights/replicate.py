"""From the home store to the stores of all sites, at the same time."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusters.spec import StoreSpec
from weights.errors import WeightsError
from weights.manifest import File, Manifest
from weights.parallel import for_each
from weights.registry import load_manifest, push_command, release_prefix
from weights.store import Store, open_store
from weights.transfer import SILENT, Delivery, Progress, deliver, download


@dataclass(frozen=True)
class Replica:
    """How it went at one site: what was delivered, or why not."""

    site: str
    outcome: Delivery | WeightsError


def replicate(
    model: str,
    release: str,
    home: Store,
    sites: Mapping[str, StoreSpec],
    parallel_files: int = 4,
    progress: Progress = SILENT,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Replica, ...]:
    """Makes a release exist at the store of each site. A site that fails stops no other; its error is in the result.

    `parallel_files` are in flight per site, each with a copy in the temporary directory. What goes wrong at home is
    raised.
    """
    manifest = load_manifest(home, model, release, push_command(model))

    def borrow(file: File) -> AbstractContextManager[Path]:
        return _borrowed(home, manifest, file)

    def at(site: str) -> Replica:
        try:
            store = open_store(sites[site], environ)
            return Replica(site, deliver(manifest, borrow, store, site, parallel_files, progress))
        except WeightsError as error:
            return Replica(site, error)

    return tuple(for_each(at, sites, max(1, len(sites))))


@contextmanager
def _borrowed(home: Store, manifest: Manifest, file: File) -> Iterator[Path]:
    """The file on this disk, verified: a store may want to send it more than once."""
    with tempfile.TemporaryDirectory(prefix="rayfleet-copy-") as scratch:
        path = Path(scratch, "file")
        download(home, release_prefix(manifest.model, manifest.release) + file.path, file, path)
        yield path
