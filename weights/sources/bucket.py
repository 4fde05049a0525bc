"""What lies below a prefix of a bucket, as a source."""

import json
from collections.abc import Iterator

from blake3 import blake3

from weights.sources.source import SourceFile, belongs, changed, usable
from weights.store import Store, Stored


class BucketSource:
    """Its objects are listed once, and must stay as they were listed."""

    local = False

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self._store = store
        self._listed = {item.key: item for item in store.objects("") if _is_file(item)}
        self.files = usable(name, (SourceFile(item.key, item.size) for item in self._listed.values()))
        listing = sorted([item.key, item.size, item.version] for item in self._listed.values())
        self.revision = blake3(json.dumps(listing).encode()).hexdigest()

    def read(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        yield from self._store.read(path, offset, length)
        found = self._store.find(path)
        if found is None or found.version != self._listed[path].version:
            raise changed(self, path)


def _is_file(item: Stored) -> bool:
    """Consoles make an empty object for what they show as a folder."""
    return belongs(item.key) and not item.key.endswith("/")
