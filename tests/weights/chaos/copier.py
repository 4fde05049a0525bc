"""A process that copies a release from one store to another until it is there, and may be killed at any moment."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import weights.manifest
from clusters.storage import StoreSpec, Verify
from weights.copying.deliver import Terms
from weights.copying.journal import Journal
from weights.copying.pace import SILENT, Pace
from weights.copying.plan import plan
from weights.copying.replicate import Ask, replicate, survey
from weights.errors import WeightsError
from weights.parallel import Lanes
from weights.releases.registry import has_release
from weights.store import Store, Upload, open_store

DONE = 0
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(
    ["tests.weights.chaos.copier", "weights.stores.s3", "weights.stores.gcs", "weights.stores.directory"]
)


@dataclass(frozen=True)
class Order:
    """What to copy between two stores, with parts of `part` bytes. Sent parts are told in the file `log`."""

    home: StoreSpec
    site: StoreSpec
    environ: Mapping[str, str]
    model: str
    release: str
    part: int
    journal: Path
    log: Path
    owner: str = "copier"
    patience_s: float = 0.0
    """How long a copy that failed is begun again."""

    def sent(self) -> list[tuple[str, int]]:
        """Key and number of every part that was sent whole."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(key, number) for key, number in map(json.loads, lines)]


class Copier:
    """The process."""

    def __init__(self, order: Order) -> None:
        self._process = SPAWN.Process(target=_copy, args=(order,))
        self._process.start()

    def kill(self) -> bool:
        """Whether it was still at work."""
        pid = self._process.pid
        assert pid is not None
        at_work = self._process.exitcode is None
        if at_work:
            os.kill(pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def wait(self, timeout_s: float = 120) -> int:
        """Its exit status, once it ended or `timeout_s` after."""
        self._process.join(timeout_s)
        status = self._process.exitcode
        assert status is not None, "it hangs"
        return status

    @property
    def at_work(self) -> bool:
        return self._process.exitcode is None


def _copy(order: Order) -> None:
    weights.manifest.PART = order.part
    stores: dict[str, Any] = {
        "home": open_store(order.home, order.environ),
        "site": Telling(open_store(order.site, order.environ), order.log),
    }
    deadline = time.monotonic() + order.patience_s
    while True:
        try:
            _once(order, stores)
            if has_release(stores["site"], order.model, order.release):
                sys.exit(DONE)
        except WeightsError as error:
            if time.monotonic() > deadline:
                sys.exit(str(error))
        time.sleep(0.05)


def _once(order: Order, stores: Mapping[str, Store]) -> None:
    @contextmanager
    def terms(site: str) -> Iterator[Terms]:
        with Lanes(3) as lanes:
            yield Terms(lanes, Pace(site), Journal(order.journal), Verify.FULL, SILENT)

    def price(source: str, target: str) -> float:
        return 0.0

    seen = survey(order.model, order.release, ("home", "site"), stores.__getitem__)
    for error in seen.failed.values():
        raise error
    plans = plan(seen.manifest, [seen.inventories["site"]], seen.holders, price, None)
    for replica in replicate(seen, plans, stores.__getitem__, terms, price, Ask(order.owner)):
        if isinstance(replica.outcome, WeightsError):
            raise replica.outcome


class Telling:
    """A store that writes down which parts it was sent."""

    def __init__(self, store: Store, log: Path) -> None:
        self._store = store
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upload(self, key: str, size: int, token: str | None = None) -> "TellingUpload":
        return TellingUpload(self._store.upload(key, size, token), key, self._log)


class TellingUpload:
    def __init__(self, upload: Upload, key: str, log: Path) -> None:
        self._upload = upload
        self._key = key
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upload, name)

    def send(self, number: int, data: bytes) -> None:
        self._upload.send(number, data)
        with self._log.open("a") as log:
            log.write(json.dumps([self._key, number]) + "\n")
