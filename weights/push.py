"""From a source into the home store: hash everything, send what is lacking, verify, publish."""

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

from weights.errors import SourceError
from weights.manifest import File, Manifest, manifest_of
from weights.parallel import for_each
from weights.source import Source
from weights.store import Store
from weights.transfer import SILENT, Delivery, Progress, deliver, digest_of


@dataclass(frozen=True)
class Pushed:
    """A release that is at the home store now."""

    manifest: Manifest
    delivery: Delivery


def push(
    model: str,
    source: Source,
    home: Store,
    site: str,
    now: datetime,
    parallel_files: int = 4,
    progress: Progress = SILENT,
) -> Pushed:
    """Stores a source as a release of `model` at `site`, the home. The same bytes again move nothing."""
    try:
        files = for_each(lambda path: _file(source, path), source.paths, parallel_files)
    except OSError as error:
        raise SourceError(f"{source.directory} can't be read: {error}") from error
    manifest = manifest_of(model, files, source.name, source.revision, now)
    delivery = deliver(
        manifest, lambda file: nullcontext(source.directory / file.path), home, site, parallel_files, progress
    )
    return Pushed(manifest, delivery)


def _file(source: Source, path: str) -> File:
    size, sha256 = digest_of(source.directory / path)
    return File(path=path, size=size, sha256=sha256)
