"""Stores of tests."""

from pathlib import Path

from clusters.storage import StoreSpec
from weights.stores.directory import DirectoryStore


def directory_store(directory: Path) -> DirectoryStore:
    directory.mkdir(exist_ok=True)
    return DirectoryStore(StoreSpec(url=f"file://{directory}"), {})
