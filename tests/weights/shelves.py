"""Stores with releases in them, put there without any of the code that copies."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from clusters.spec import Provider
from tests.fakes.store import directory_store
from tests.local_stores import running
from weights.manifest import File, Manifest, digest_of, manifest_of
from weights.releases.registry import publish, release_prefix
from weights.store import Store, open_store

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 64, "sub/empty": b""}


@pytest.fixture(scope="module", params=["directory", "aws", "gcp", "onprem"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A directory, moto and a GCS server, which honour conditions, and rclone, which does not."""
    directory = tmp_path_factory.mktemp("stores")
    if request.param == "directory":
        yield directory_store(directory / "data")
        return
    provider = Provider(request.param)
    with running(provider, directory=directory) as stores:
        yield open_store(stores[provider].spec, stores[provider].environ)


@pytest.fixture
def model() -> str:
    """One that no other test has: the stores are shared."""
    return f"model-{uuid4().hex[:8]}"


def described(
    model: str, files: Mapping[str, bytes] = FILES, created: datetime = NOW, parent: str | None = None
) -> Manifest:
    """The manifest of a release with these small files."""
    listed = (File(path=path, size=len(content), digest=digest_of(content)) for path, content in files.items())
    return manifest_of(model, listed, "a test", None, created, parent)


def shelve(
    store: Store,
    model: str,
    files: Mapping[str, bytes] = FILES,
    created: datetime = NOW,
    parent: str | None = None,
) -> Manifest:
    """Stores a release."""
    manifest = described(model, files, created, parent)
    for path, content in files.items():
        store.write(release_prefix(model, manifest.release) + path, content)
    publish(store, manifest)
    return manifest


def path_of(directory: Path, manifest: Manifest, path: str) -> Path:
    """Where a directory store has a file of a release."""
    return directory / release_prefix(manifest.model, manifest.release) / path
