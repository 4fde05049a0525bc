"""rayfleet's own jobs, each a process of its own: `python -m bench.weights.ours JOB JSON`, JSON being its arguments."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from blake3 import blake3

from clusters.storage import StoreSpec, Verify
from weights.copying.deliver import Delivery, Terms
from weights.copying.journal import Journal
from weights.copying.pace import SILENT, Pace
from weights.copying.plan import Inventory, plan
from weights.copying.replicate import Ask, replicate, survey
from weights.manifest import Manifest, digest_of, manifest_of
from weights.node import disk
from weights.node.cache import fetch
from weights.parallel import Lanes
from weights.push import push
from weights.sources.source import Stretch, open_source
from weights.store import Store, open_store

Fields = dict[str, Any]
"""A StoreSpec as JSON has it."""
HOME = "home"


def argv(job: str, **arguments: Any) -> tuple[str, ...]:
    """The command that does one of JOBS."""
    return (sys.executable, "-m", "bench.weights.ours", job, json.dumps(arguments))


def fetch_release(spec: Fields, model: str, release: str, to: str, parallel: int, digests: bool) -> None:
    """`to` is the cache directory. Without `digests` all bytes are believed, which the product can't be told to do."""
    with nullcontext() if digests else patch.object(disk, "blake3", _Believing):
        fetch(open_store(StoreSpec(**spec)), model, release, to, parallel_parts=parallel)


def push_release(spec: Fields, model: str, source: str, verify: str, journal: str, parallel: int) -> None:
    opened, home = open_source(source, Path()), open_store(StoreSpec(**spec))
    with _terms(HOME, verify, journal, parallel) as terms:
        push(model, opened, home, HOME, datetime.now(UTC), terms)


def replicate_release(
    specs: dict[str, Fields], model: str, release: str, verify: str, journal: str, parallel: int
) -> None:
    """`specs` are by site; those that lack the release get it."""
    stores = {site: open_store(StoreSpec(**spec)) for site, spec in specs.items()}

    def opened(site: str) -> Store:
        return stores[site]

    seen = survey(model, release, list(stores), opened)
    wanted = [one for site, one in seen.inventories.items() if site not in seen.holders]
    plans = plan(seen.manifest, wanted, seen.holders, _free, None)
    replicas = replicate(seen, plans, opened, lambda site: _terms(site, verify, journal, parallel), _free, Ask("bench"))
    for replica in replicas:
        if not isinstance(replica.outcome, Delivery):
            raise SystemExit(f"{replica.site}: {replica.outcome}")


def digest_source(source: str, parallel: int) -> None:
    """Every byte read and hashed, as a push does it."""
    opened = open_source(source, Path())

    def digest(work: tuple[str, Stretch]) -> None:
        path, part = work
        hasher = blake3()
        for piece in opened.read(path, part.offset, part.length):
            hasher.update(piece)
        hasher.hexdigest()

    with Lanes(parallel) as lanes:
        lanes.for_each(digest, [(file.path, part) for file in opened.files for part in file.stretches()])


def plan_release(source: str) -> None:
    """What a push and a replication think before they move a byte; digests are made up. Prints seconds by step."""
    clock = _Clock()
    files = open_source(source, Path()).files
    clock.lap("list files")
    digested = [file.digested([digest_of(b"%d" % part.number) for part in file.stretches()]) for file in files]
    clock.lap("make up digests")
    manifest = manifest_of("planned", digested, source, None, datetime.now(UTC))
    clock.lap(f"make the manifest of {manifest.release}")
    text = manifest.to_json()
    clock.lap(f"write it, {len(text) / 2**20:.1f} MiB")
    Manifest.from_json(text)
    clock.lap("read it")
    some = {file.path: file.size for file in manifest.files[::2]}
    inventories = [Inventory("empty", {}, {}, None), Inventory("half", some, {}, None)]
    plan(manifest, inventories, [HOME], _free, None)
    clock.lap("plan for two sites, one with half of it")
    print(json.dumps(clock.laps))


JOBS: dict[str, Callable[..., None]] = {
    "fetch": fetch_release,
    "push": push_release,
    "replicate": replicate_release,
    "digest": digest_source,
    "plan": plan_release,
}


@contextmanager
def _terms(site: str, verify: str, journal: str, parallel: int) -> Iterator[Terms]:
    with Lanes(parallel) as lanes:
        yield Terms(lanes, Pace(site), Journal(journal), Verify(verify), SILENT)


def _free(source: str, target: str) -> float:
    """USD per GB."""
    return 0.0


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._began = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._began
        self._began = now


class _Believing:
    """Stands in for a hash, costs nothing, and finds everything as it should be."""

    def update(self, content: memoryview) -> None:
        pass

    def hexdigest(self) -> "_EqualToAll":
        return _EqualToAll()


class _EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # as of all that compare but can't be told apart


def main(job: str, arguments: str) -> None:
    # All processes of a machine share this clock.
    Path(os.environ["BENCH_BEGAN"]).write_text(repr(time.perf_counter()))
    JOBS[job](**json.loads(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
