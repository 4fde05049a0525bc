"""From a source into the home store: digest everything, send what is lacking, verify, publish."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from blake3 import blake3

from weights.copying.deliver import Delivery, Terms, deliver
from weights.manifest import File, Manifest, manifest_of
from weights.parallel import Lanes
from weights.releases.registry import history, release_prefix
from weights.sources.source import Source, SourceParts, Stretch, changed
from weights.sources.staging import Staging
from weights.store import Store


@dataclass(frozen=True)
class Pushed:
    """A release that is at the home store now."""

    manifest: Manifest
    delivery: Delivery


def push(model: str, source: Source, home: Store, site: str, now: datetime, terms: Terms) -> Pushed:
    """Stores a source as a release of `model` at `site`, the home. The same bytes again move nothing, and a revision
    that is there already is not even read. Raises WeightsError; what landed until then is there for the next run.
    """
    earlier = history(home, model)
    staging = Staging(source, home, site, terms)
    staged: Mapping[str, str] = {}
    if same := _of_same_revision(source, earlier):
        manifest = same
    elif source.local:
        manifest = _manifest(model, source, _digested(source, terms.lanes), earlier, now)
    else:
        manifest = _manifest(model, source, staging.fill(_latest_files(earlier)), earlier, now)
        staged = staging.keys()
    clones = {**staged, **_elsewhere(manifest, earlier)}
    delivery = deliver(manifest, SourceParts(source, terms.pace), home, site, terms, clones)
    if not source.local:
        staging.clear()
    return Pushed(manifest, delivery)


def _of_same_revision(source: Source, earlier: Iterable[Manifest]) -> Manifest | None:
    if source.revision is None:
        return None
    named = (source.name, source.revision)
    return next((manifest for manifest in earlier if (manifest.source, manifest.revision) == named), None)


def _digested(source: Source, lanes: Lanes) -> list[File]:
    """All files, read once; the parts of all of them at the same time."""

    def digest(work: tuple[str, Stretch]) -> str:
        path, part = work
        hasher, size = blake3(), 0
        for piece in source.read(path, part.offset, part.length):
            hasher.update(piece)
            size += len(piece)
        if size != part.length:
            raise changed(source, path)
        return hasher.hexdigest()

    digests = iter(lanes.for_each(digest, [(file.path, part) for file in source.files for part in file.stretches()]))
    return [file.digested([next(digests) for _ in file.stretches()]) for file in source.files]


def _manifest(
    model: str, source: Source, files: Iterable[File], earlier: Sequence[Manifest], now: datetime
) -> Manifest:
    """The one that home has of these files, or a new one, whose parent is the latest that home has."""
    parent = earlier[0].release if earlier else None
    made = manifest_of(model, files, source.name, source.revision, now, parent)
    return next((manifest for manifest in earlier if manifest.release == made.release), made)


def _latest_files(earlier: Sequence[Manifest]) -> dict[str, File]:
    return {file.path: file for file in earlier[0].files} if earlier else {}


def _elsewhere(manifest: Manifest, earlier: Iterable[Manifest]) -> dict[str, str]:
    """Keys of the same bytes in other releases of the model, by the path of the manifest's files."""
    keys = {
        file.digest: release_prefix(other.model, other.release) + file.path
        for other in earlier
        if other.release != manifest.release
        for file in other.files
    }
    return {file.path: keys[file.digest] for file in manifest.files if file.digest in keys}
