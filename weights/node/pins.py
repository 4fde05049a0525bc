"""What a node's cache may not give up: its site's replicator leaves the list there, and who makes room goes by it."""

import json
from pathlib import Path
from tempfile import NamedTemporaryFile

PINS = ".pins.json"


def pin(cache_dir: Path, releases: frozenset[str]) -> None:
    """Only these ("model/release") are kept from now on, beside what is in use. Raises OSError."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=cache_dir, prefix=PINS, delete=False) as file:
        json.dump(sorted(releases), file)
    Path(file.name).replace(cache_dir / PINS)


def pinned(cache_dir: Path) -> frozenset[str] | None:
    """None where nobody has said yet, or what was said can't be read: then everything is kept."""
    try:
        return frozenset(json.loads((cache_dir / PINS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
