"""An advisory lease on a release at a store, so that two replicators don't pay for the same bytes.

Nothing depends on it: two who copy the same release at once store the same bytes. So where it can't be had, or is lost
half-way, copying goes on, and the log tells why.
"""

import json
import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from weights.errors import StoreError, WeightsError
from weights.releases.registry import MODELS, RELEASE_ID, Release, read_object
from weights.store import Store

log = logging.getLogger(__name__)

TTL_S = 60.0
"""A lease that was not renewed for so long is anybody's."""
MAX_BYTES = 4096
ATTEMPTS = 5
_KEY = re.compile(rf"{MODELS}([^/]+)/({RELEASE_ID.pattern})\.lease(-[0-9a-f]+)?")


def own_name() -> str:
    """Tells this process from every other one, to machines and to people."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def lease_key(model: str, release: str) -> str:
    return f"{MODELS}{model}/{release}.lease"


def leased_release(key: str) -> Release | None:
    """The release that an object is a lease on, or what a process left of taking one."""
    found = _KEY.fullmatch(key)
    return (found[1], found[2]) if found else None


@contextmanager
def held(store: Store, model: str, release: str, owner: str, ttl_s: float = TTL_S) -> Iterator[str | None]:
    """Yields None where the lease is ours, or can't be had by anyone, and else the name of who has it."""
    lease = _Lease(store, lease_key(model, release), owner, ttl_s)
    try:
        holds = lease.take() if store.conditional else None
    except WeightsError as error:
        log.warning("copying %s %s without a lease: %s", model, release, error)
        holds = None
    if holds != owner:
        yield holds
        return
    with lease.kept():
        yield None


def holder(store: Store, model: str, release: str) -> str | None:
    """Who holds the lease on a release now."""
    return _Lease(store, lease_key(model, release), "", TTL_S).seen()[0]


@dataclass(frozen=True)
class _Lease:
    store: Store
    key: str
    owner: str
    ttl_s: float

    def take(self) -> str | None:
        """Who has it now: we, if it was free; None if others were faster all the time."""
        for _ in range(ATTEMPTS):
            other, version = self.seen()
            if other not in (None, self.owner):
                return other
            if self._write(version):
                return self.owner
        return None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renewed until the end, then given back."""
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(done,), name="lease", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            self._leave()

    def seen(self) -> tuple[str | None, str | None]:
        """Who has it, if anybody, and the version to replace."""
        found = read_object(self.store, self.key, MAX_BYTES)
        if found is None:
            return None, None
        stored, content = found
        expired = self._now() - stored.modified > self.ttl_s
        return None if expired else _owner(content), stored.version

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(self.ttl_s / 3):
            try:
                version = self._own_version()
                # A write that is refused may have been ours, told twice.
                if version is None or not (self._write(version) or self._own_version()):
                    log.warning("lost the lease %s at %s; copying goes on", self.key, self.store.url)
                    return
            except WeightsError as error:
                log.warning("can't renew a lease, will try again: %s", error)

    def _leave(self) -> None:
        try:
            if self._own_version() is not None:
                self.store.delete(self.key)
        except WeightsError as error:
            log.warning("can't give back a lease, it will expire: %s", error)

    def _own_version(self) -> str | None:
        found = read_object(self.store, self.key, MAX_BYTES)
        return found[0].version if found and _owner(found[1]) == self.owner else None

    def _write(self, version: str | None) -> bool:
        # Never the same bytes twice: a version may be their digest, and each renewal must make another one.
        content = json.dumps({"owner": self.owner, "nonce": secrets.token_hex(8)})
        return self.store.write_if(self.key, content.encode(), version)

    def _now(self) -> float:
        """By the store's clock, which dates leases: this machine's may differ."""
        key = f"{self.key}-{secrets.token_hex(8)}"
        self.store.write(key, b"")
        try:
            stored = self.store.find(key)
        finally:
            self.store.delete(key)
        if stored is None:
            raise StoreError(self.store.url, f"find {key}", "it was written just now and is gone")
        return stored.modified


def _owner(content: bytes) -> str:
    try:
        return str(json.loads(content)["owner"])
    except (ValueError, TypeError, KeyError):
        return "somebody"
