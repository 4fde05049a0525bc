"""A push that is killed leaves nothing that is not whole, and the next one goes on where it ended."""

import multiprocessing
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from tests.fakes.hub import REPO, Hub, running
from tests.weights.pushing import MODEL, NOW, Place, held, place_of, staged, terms_at
from weights.copying.pace import SILENT
from weights.manifest import PART
from weights.push import push
from weights.releases.registry import releases
from weights.sources.source import open_source
from weights.sources.staging import INCOMING

SPAWN = multiprocessing.get_context("spawn")
RANDOM = random.Random(5)
FILES = {f"model-{number}.safetensors": RANDOM.randbytes(PART + 1 + number) for number in range(4)} | {
    f"small-{number}.json": RANDOM.randbytes(number) for number in range(4)
}
SIZE = sum(map(len, FILES.values()))
KILLS = 5 if os.environ.get("RAYFLEET_TEST_THOROUGH") else 2


class Doomed:
    """Progress that kills its process some bytes and some seconds after the start."""

    def __init__(self, after_bytes: int, and_seconds: float) -> None:
        self._left = after_bytes
        self._timer = threading.Timer(and_seconds, os.kill, (os.getpid(), signal.SIGKILL))
        self._timer.daemon = True
        self._lock = threading.Lock()

    def begin(self, site: str, size: int) -> None:
        pass

    def advance(self, site: str, size: int) -> None:
        with self._lock:
            self._left -= size
            if self._left <= 0 and not self._timer.is_alive():
                self._timer.start()


def _push(environ: dict[str, str], home: Place, scratch: Path, doom: tuple[int, float] | None) -> None:
    source = open_source(f"hf://{REPO}", Path(), environ)
    with terms_at(scratch, Doomed(*doom) if doom else SILENT, lanes=2) as terms:
        push(MODEL, source, home.open(), "home", NOW, terms)


def run(hub: Hub, home: Place, scratch: Path, doom: tuple[int, float] | None) -> int | None:
    """The exit code of a push in a process of its own."""
    process = SPAWN.Process(target=_push, args=(hub.environ, home, scratch, doom))
    process.start()
    process.join(100)
    return process.exitcode


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["directory", "aws", "gcp"])
def test_a_killed_push_goes_on(tmp_path: Path, kind: str) -> None:
    chance = random.Random(kind)
    (tmp_path / "store").mkdir()
    hub = Hub(dict(FILES), large=frozenset(path for path in FILES if path.startswith("model")))
    with place_of(kind, tmp_path / "store") as place, running(hub):
        home, kept, skipped = place.fresh(), set[str](), 0
        # The first one late, so that there is something to go on with.
        bytes_done = [SIZE * 3 // 4, *(chance.randrange(SIZE // 2) for _ in range(1, KILLS))]
        for doom in [*((size, chance.uniform(0, 0.05)) for size in bytes_done), None]:
            served = len(hub.served)
            code = run(hub, home, tmp_path, doom)
            assert code in (0, -signal.SIGKILL) if doom else code == 0
            assert not kept & {path for path, _, size in hub.served[served:] if size}
            for release in releases(home.open(), MODEL):
                assert held(home.open(), release) == FILES
            skipped += len(kept)
            kept = set(FILES) if releases(home.open(), MODEL) else set(staged(home.open()))
        assert skipped
        (release,) = releases(home.open(), MODEL)
        assert held(home.open(), release) == FILES
        assert list(home.open().objects(INCOMING)) == []
