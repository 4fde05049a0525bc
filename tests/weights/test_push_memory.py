"""A file may be far larger than what pushing it holds in memory."""

import multiprocessing
import random
import re
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from clusters.storage import StoreSpec
from tests.weights.pushing import MODEL, NOW, Place, place_of, terms_at
from weights.manifest import PART
from weights.push import push
from weights.sources.bucket import BucketSource
from weights.store import open_store

SPAWN = multiprocessing.get_context("spawn")
SIZE = 2**30
ALLOWED = 300 * 2**20
LANES = 8
"""As fleet.yaml's default has it."""


def _push(source: Place, home: StoreSpec, scratch: Path, told: Connection) -> None:
    opened, store = BucketSource(source.spec.url, source.open()), open_store(home)
    before = _memory("VmRSS")
    with terms_at(scratch, lanes=LANES) as terms:
        pushed = push(MODEL, opened, store, "home", NOW, terms)
    told.send((pushed.manifest.size, _memory("VmHWM") - before))


def _memory(field: str) -> int:
    """Bytes that this process has now (VmRSS) or had at most (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    home = StoreSpec(url=f"file://{tmp_path / 'home'}")
    with place_of("onprem", tmp_path) as place:
        bucket = tmp_path / "onprem" / "data" / "test-bucket"
        with (bucket / "model.safetensors").open("wb") as file:
            for offset in range(0, SIZE, PART):
                file.seek(offset)
                file.write(random.Random(offset).randbytes(64))
            file.truncate(SIZE)
        here, there = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=_push, args=(place, home, tmp_path, there))
        process.start()
        there.close()
        size, grown = here.recv()
        process.join()
    assert size == SIZE
    assert grown < ALLOWED
