"""Which releases a store holds. A release is there when its manifest is, and the manifest is written last."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace

from weights.errors import Corrupt, InvalidManifest, NotFound, ReleaseMissing
from weights.manifest import MANIFEST, MAX_BYTES, Manifest
from weights.store import Store, Stored

log = logging.getLogger(__name__)

Release = tuple[str, str]
"""A model and the id of its release."""

MODELS = "models/"
CACHES = ".caches"
"""What engines compiled for a release lies beside it, below its id and this."""
RELEASE_ID = re.compile(r"[0-9a-f]{12}")


def release_prefix(model: str, release: str) -> str:
    """Where a release's files and its manifest lie in every store."""
    return f"{MODELS}{model}/{release}/"


def has_release(store: Store, model: str, release: str) -> bool:
    return store.find(release_prefix(model, release) + MANIFEST) is not None


def require_release(store: Store, model: str, release: str, site: str) -> None:
    """Raises ReleaseMissing, which names the command that would mend it."""
    if not has_release(store, model, release):
        raise ReleaseMissing(model, release, store.url, replicate_command(model, site))


def push_command(model: str) -> str:
    """What brings a release to the home store."""
    return f"rayfleet weights push {model}"


def replicate_command(model: str, site: str | None = None, release: str | None = None) -> str:
    """What brings a release, or the one that the fleet file names, to one site's store, or to all."""
    options = {"--site": site, "--release": release}
    return f"rayfleet weights replicate {model}" + "".join(f" {name} {of}" for name, of in options.items() if of)


def load_manifest(store: Store, model: str, release: str, mend: str) -> Manifest:
    """The manifest of a release. Raises Corrupt when it is not that, and ReleaseMissing, with the command `mend`."""
    key = release_prefix(model, release) + MANIFEST
    found = read_object(store, key, MAX_BYTES)
    if found is None:
        raise ReleaseMissing(model, release, store.url, mend)
    try:
        manifest = Manifest.from_json(found[1])
    except InvalidManifest as error:
        raise Corrupt(key, store.url, str(error)) from error
    if (manifest.model, manifest.release) != (model, release):
        raise Corrupt(key, store.url, f"it is the manifest of {manifest.model} {manifest.release}")
    return manifest


def publish(store: Store, manifest: Manifest) -> None:
    """Makes the release exist at the store. Its files must all be there, verified."""
    store.write(release_prefix(manifest.model, manifest.release) + MANIFEST, manifest.to_json())


def unpublish(store: Store, model: str, release: str) -> None:
    """The release is no more at the store, though its files are. Nothing happens when it isn't there."""
    store.delete(release_prefix(model, release) + MANIFEST)


def stored_files(store: Store, model: str, release: str) -> Iterator[Stored]:
    """What lies at the store under a release, complete or not; keys are paths within the release."""
    prefix = release_prefix(model, release)
    return (replace(item, key=item.key.removeprefix(prefix)) for item in store.objects(prefix))


def releases(store: Store, model: str) -> tuple[str, ...]:
    """The ids of a model's complete releases, sorted."""
    return tuple(sorted(release for _, release in _published(store, f"{MODELS}{model}/")))


def models(store: Store) -> tuple[str, ...]:
    """Which models have a complete release at the store, sorted."""
    return tuple(sorted({model for model, _ in _published(store, MODELS)}))


def history(store: Store, model: str) -> tuple[Manifest, ...]:
    """The manifests of a model's complete releases, the latest made first. One that is corrupt hides no other: it is
    logged and left out.
    """
    found = []
    for release in releases(store, model):
        try:
            found.append(load_manifest(store, model, release, push_command(model)))
        except ReleaseMissing:  # removed since it was listed
            continue
        except Corrupt as error:
            log.warning("%s", error)
    return tuple(sorted(found, key=lambda manifest: (manifest.created, manifest.release), reverse=True))


def release_of(key: str) -> tuple[Release, str] | None:
    """The release under which an object lies, and its path there."""
    match key.split("/", 3):
        case ["models", model, release, path] if RELEASE_ID.fullmatch(release):
            return (model, release), path
    return None


def cached_release(key: str) -> Release | None:
    """The release that an object is a cache of."""
    match key.split("/", 3):
        case ["models", model, directory, _] if directory.endswith(CACHES):
            release = directory.removesuffix(CACHES)
            return (model, release) if RELEASE_ID.fullmatch(release) else None
    return None


def read_object(store: Store, key: str, limit: int) -> tuple[Stored, bytes] | None:
    """A small object, or None when there is none. Raises Corrupt where it is larger than `limit` bytes.

    The content is at least as new as the version, so that whoever replaces that version has seen what it held.
    """
    stored = store.find(key)
    if stored is None:
        return None
    if stored.size > limit:
        raise Corrupt(key, store.url, f"it has {stored.size:,} bytes, more than {limit:,}")
    try:
        return stored, b"".join(store.read(key, 0, limit)) if stored.size else b""
    except NotFound:  # removed since it was found
        return None


def _published(store: Store, prefix: str) -> Iterator[Release]:
    places = (release_of(item.key) for item in store.objects(prefix))
    return (place[0] for place in places if place and place[1] == MANIFEST)
