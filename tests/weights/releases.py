"""What small releases of tests consist of."""

from datetime import UTC, datetime
from pathlib import Path

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
MODEL = "tiny"
FILES = {
    "config.json": b'{"layers": 2}',
    "model-1.safetensors": bytes(range(256)) * 100,
    "model-2.safetensors": bytes(range(255, -1, -1)) * 100,
    "sub/empty": b"",
}


def write_source(directory: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def content(directory: Path) -> dict[str, bytes]:
    """Every file below a directory but its manifest."""
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
    files.pop("manifest.json", None)
    return files
