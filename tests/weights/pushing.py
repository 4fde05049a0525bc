"""Terms to push on, and places to push to and from: each kind of store, really running."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from clusters.spec import Provider
from clusters.storage import StoreSpec, Verify
from tests.local_stores import running
from weights.copying.deliver import Terms
from weights.copying.journal import Journal
from weights.copying.pace import SILENT, Pace, Progress
from weights.parallel import Lanes
from weights.push import Pushed, push
from weights.releases.registry import release_prefix, stored_files
from weights.sources.source import Source
from weights.sources.staging import INCOMING
from weights.store import Store, open_store

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
MODEL = "tiny"
KINDS = ["directory", "aws", "onprem", "gcp"]


@dataclass(frozen=True)
class Place:
    """A store that runs; `kind` is one of KINDS."""

    kind: str
    spec: StoreSpec
    environ: Mapping[str, str]

    def fresh(self) -> "Place":
        """The same store with nothing in it."""
        url = f"{self.spec.url}/{uuid4().hex}"
        if url.startswith("file://"):
            Path(url.removeprefix("file://")).mkdir()
        return Place(self.kind, self.spec.model_copy(update={"url": url}), self.environ)

    def open(self) -> Store:
        return open_store(self.spec, self.environ)


@contextmanager
def place_of(kind: str, directory: Path) -> Iterator[Place]:
    if kind == "directory":
        yield Place(kind, StoreSpec(url=f"file://{directory}"), {})
        return
    provider = Provider(kind)
    with running(provider, directory=directory) as stores:
        yield Place(kind, stores[provider].spec, stores[provider].environ)


@contextmanager
def terms_at(scratch: Path, progress: Progress = SILENT, lanes: int = 4) -> Iterator[Terms]:
    with Lanes(lanes) as running_lanes:
        yield Terms(running_lanes, Pace("home"), Journal(scratch / "journal"), Verify.FULL, progress)


def push_to(home: Store, source: Source, scratch: Path, now: datetime = NOW, progress: Progress = SILENT) -> Pushed:
    with terms_at(scratch, progress) as terms:
        return push(MODEL, source, home, "home", now, terms)


def held(home: Store, release: str) -> dict[str, bytes]:
    """What lies at home under a release, by path, but for its manifest."""
    prefix = release_prefix(MODEL, release)
    paths = {item.key: item.size for item in stored_files(home, MODEL, release) if item.key != "manifest.json"}
    return {path: b"".join(home.read(prefix + path, 0, size)) if size else b"" for path, size in paths.items()}


def staged(home: Store) -> list[str]:
    """Paths of files that wait at home to become part of a release, which are whole and noted."""
    return sorted(item.key.split("/", 3)[3] for item in home.objects(INCOMING) if item.key.split("/")[2] == "files")
