"""Which releases a store holds. A release is there when its manifest is, and the manifest is written last."""

from collections.abc import Iterator

from weights.errors import Corrupt, InvalidManifest, NotFound, ReleaseMissing
from weights.manifest import MANIFEST, MAX_BYTES, Manifest
from weights.store import Store, Stored, chunks


def release_prefix(model: str, release: str) -> str:
    """Where a release's files and its manifest lie in every store."""
    return f"models/{model}/{release}/"


def has_release(store: Store, model: str, release: str) -> bool:
    return store.size(release_prefix(model, release) + MANIFEST) is not None


def require_release(store: Store, model: str, release: str, site: str) -> None:
    """Raises ReleaseMissing, which names the command that would mend it."""
    if not has_release(store, model, release):
        raise ReleaseMissing(model, release, store.url, replicate_command(model, site))


def push_command(model: str) -> str:
    """What brings a release to the home store."""
    return f"rayfleet weights push {model}"


def replicate_command(model: str, site: str | None = None) -> str:
    """What brings a release from the home store to one site's store, or to all."""
    return f"rayfleet weights replicate {model}" + (f" --site {site}" if site else "")


def load_manifest(store: Store, model: str, release: str, mend: str) -> Manifest:
    """The manifest of a release. Raises Corrupt when it is not that, and ReleaseMissing, with the command `mend`."""
    key = release_prefix(model, release) + MANIFEST
    size = store.size(key)
    if size is None:
        raise ReleaseMissing(model, release, store.url, mend)
    if size > MAX_BYTES:
        raise Corrupt(key, store.url, f"it has {size:,} bytes, more than {MAX_BYTES:,}")
    try:
        manifest = Manifest.from_json(b"".join(chunks(store, key, size)))
    except NotFound as error:
        raise ReleaseMissing(model, release, store.url, mend) from error
    except InvalidManifest as error:
        raise Corrupt(key, store.url, str(error)) from error
    if (manifest.model, manifest.release) != (model, release):
        raise Corrupt(key, store.url, f"it is the manifest of {manifest.model} {manifest.release}")
    return manifest


def publish(store: Store, manifest: Manifest) -> None:
    """Makes the release exist at the store. Its files must all be there, verified."""
    store.write(release_prefix(manifest.model, manifest.release) + MANIFEST, manifest.to_json())


def stored_files(store: Store, model: str, release: str) -> Iterator[Stored]:
    """What lies at the store under a release, complete or not; keys are paths within the release."""
    prefix = release_prefix(model, release)
    return (Stored(item.key.removeprefix(prefix), item.size) for item in store.objects(prefix))


def releases(store: Store, model: str) -> tuple[str, ...]:
    """The ids of a model's complete releases, sorted."""
    prefix = f"models/{model}/"
    parts = (item.key.removeprefix(prefix).split("/") for item in store.objects(prefix))
    return tuple(sorted(path[0] for path in parts if path[1:] == [MANIFEST]))
