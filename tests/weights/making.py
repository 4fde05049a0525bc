"""Releases made by hand at a store, and what it takes to copy them."""

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from clusters.storage import StoreSpec, Verify
from tests.weights.releases import FILES, MODEL, NOW
from weights.copying.deliver import Terms
from weights.copying.journal import Journal
from weights.copying.pace import SILENT, Pace, Progress
from weights.manifest import File, Manifest, digest_of, digest_of_parts, manifest_of, part_bytes
from weights.parallel import Lanes
from weights.releases.registry import publish, release_prefix
from weights.store import Store, open_store


def file_of(path: str, content: bytes) -> File:
    step = part_bytes(len(content))
    digests = [digest_of(content[at : at + step]) for at in range(0, max(1, len(content)), step)]
    parts = tuple(digests) if len(digests) > 1 else ()
    return File(path=path, size=len(content), digest=digest_of_parts(digests), parts=parts)


def release_of(files: Mapping[str, bytes] = FILES, model: str = MODEL, parent: str | None = None) -> Manifest:
    return manifest_of(model, [file_of(path, text) for path, text in files.items()], "made", None, NOW, parent)


def published(store: Store, files: Mapping[str, bytes] = FILES, model: str = MODEL) -> Manifest:
    """The manifest of a release of these files, which the store holds now."""
    manifest = release_of(files, model)
    for path, text in files.items():
        store.write(release_prefix(model, manifest.release) + path, text)
    publish(store, manifest)
    return manifest


@contextmanager
def terms(
    verify: Verify = Verify.FULL, progress: Progress = SILENT, lanes: int = 4, journal: Path | None = None
) -> Iterator[Terms]:
    with tempfile.TemporaryDirectory() as scratch, Lanes(lanes) as shared:
        yield Terms(shared, Pace("test"), Journal(journal or scratch), verify, progress)


def directory(path: Path) -> Store:
    path.mkdir(parents=True, exist_ok=True)
    return open_store(StoreSpec(url=path.as_uri()))


def held(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """What the store has under the release, by path."""
    prefix = release_prefix(manifest.model, manifest.release)
    return {
        item.key.removeprefix(prefix): b"".join(store.read(item.key, 0, item.size)) if item.size else b""
        for item in store.objects(prefix)
        if not item.key.endswith("/manifest.json")
    }


def large(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)
