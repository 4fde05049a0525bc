"""Tokens of uploads that were begun, on this machine's disk, so that a killed process leaves them to its successor."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from blake3 import blake3


class Journal:
    """One small file per upload, readable by its owner only: a token may open the upload to whoever knows it."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    def token(self, url: str, key: str) -> str | None:
        """Of the upload of this key at the store with this url."""
        with suppress(FileNotFoundError):
            return self._path(url, key).read_text()
        return None

    def keep(self, url: str, key: str, token: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(url, key)
        aside = path.with_suffix(f".{secrets.token_hex(4)}")
        aside.touch(mode=0o600)
        aside.write_text(token)
        aside.replace(path)

    def drop(self, url: str, key: str) -> None:
        self._path(url, key).unlink(missing_ok=True)

    def sweep(self, before: float) -> None:
        """Forgets what was begun before `before`, seconds since the epoch: no store keeps it for so long."""
        for path in self._directory.glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _path(self, url: str, key: str) -> Path:
        return self._directory / blake3(f"{url}\n{key}".encode()).hexdigest(length=20)
