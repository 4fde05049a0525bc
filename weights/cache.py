"""The releases on a node's disk, from which engines load. One fetch per node, however many replicas ask.

<cache>/<model>/<release>/              complete and verified
<cache>/<model>/<release>.partial-<pid> a fetch under way, or what a killed one left
<cache>/<model>/<release>.lock          held by whoever fetches
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weights.errors import DiskFull, InvalidManifest
from weights.manifest import MANIFEST, File, Manifest
from weights.parallel import for_each
from weights.registry import load_manifest, release_prefix, replicate_command
from weights.store import Store
from weights.transfer import SILENT, Progress, download

PARTIAL = ".partial-"


def fetch(
    store: Store,
    model: str,
    release: str,
    cache_dir: str | os.PathLike[str],
    parallel_files: int = 4,
    site: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """The local directory of a release, fetched from the site's store unless it is there already.

    Waits while another process fetches the same. Raises ReleaseMissing, Corrupt (which names the file), DiskFull or
    StoreError; nothing of the release is left in the cache then.
    """
    home = Path(cache_dir, model)
    home.mkdir(parents=True, exist_ok=True)
    complete = home / release
    with _locked(home / f"{release}.lock"):
        _sweep(home, release)
        if not _is_complete(complete):
            manifest = load_manifest(store, model, release, replicate_command(model, site))
            shutil.rmtree(complete, ignore_errors=True)
            _fetch_aside(store, manifest, complete, parallel_files, site or model, progress)
    return complete


def _fetch_aside(
    store: Store, manifest: Manifest, complete: Path, parallel_files: int, site: str, progress: Progress
) -> None:
    partial = complete.with_name(f"{complete.name}{PARTIAL}{os.getpid()}")
    prefix = release_prefix(manifest.model, manifest.release)

    def bring(file: File) -> None:
        path = partial / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        download(store, prefix + file.path, file, path)
        _sync(path)
        progress.advance(site, file.size)

    if shutil.disk_usage(complete.parent).free < manifest.size:
        raise DiskFull(str(complete.parent), manifest.size)
    try:
        partial.mkdir()
        progress.begin(site, manifest.size)
        for_each(bring, manifest.files, parallel_files)
        (partial / MANIFEST).write_bytes(manifest.to_json())
        for path in (partial / MANIFEST, *(Path(directory) for directory, _, _ in os.walk(partial))):
            _sync(path)
        partial.rename(complete)
        _sync(complete.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _is_complete(directory: Path) -> bool:
    """Cheap: a directory has this name only after every byte was verified, so sizes show what was lost since."""
    try:
        manifest = Manifest.from_json((directory / MANIFEST).read_bytes())
        sizes_match = all((directory / file.path).stat().st_size == file.size for file in manifest.files)
        return sizes_match and manifest.release == directory.name
    except (FileNotFoundError, NotADirectoryError, InvalidManifest):
        return False


def _sweep(home: Path, release: str) -> None:
    """Removes what killed fetches left. Only who holds a release's lock writes its partial directory."""
    for partial in home.glob(f"*{PARTIAL}*"):
        owner = partial.name.partition(PARTIAL)[0]
        if owner == release:
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with _locked(home / f"{owner}.lock", wait=False) as held:
                if held:
                    shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """An exclusive lock that ends with its holder, even a killed one. Yields whether it is held."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _sync(path: Path) -> None:
    """To the disk, so that a power cut after the rename finds what was verified."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
