"""What engines compiled for a release, kept beside it in the site's store, so that new nodes need not compile it again.

torch unpickles what lies in such a cache: whoever writes one decides what runs. So a pack from a store is believed only
if it begins with the site's own signature, a keyed BLAKE3 of where it lies and what it holds. A pack that is lost, or
not believed, costs the time to compile and no more.
"""

import hmac
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from blake3 import blake3

from weights.copying.pace import Pace
from weights.errors import Corrupt
from weights.manifest import PART, part_bytes
from weights.node.disk import files_below
from weights.node.slot import CACHES, Slot, locked
from weights.releases.registry import MODELS
from weights.store import PIECE, Store

log = logging.getLogger(__name__)

MAX_BYTES = 2 * 2**30
"""Of a pack; a larger cache stays on its node."""
MEMBER_BYTES = 2048
"""What a tar adds to a file, at most."""
SIGNATURE_BYTES = 32
CONTEXT = "rayfleet 2026-11 compile caches of engines"


def engine_name(version: str, accelerator: str) -> str:
    """What a cache is good for: no other version of the engine, and no other accelerator."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", f"{version}-{accelerator}").lower()


@dataclass(frozen=True)
class CompileCache:
    """The cache of one release on this node, for the `engine` that `engine_name` names."""

    slot: Slot
    engine: str

    @property
    def directory(self) -> Path:
        """For the engine: VLLM_CACHE_ROOT."""
        return self.slot.caches / self.engine

    @property
    def key(self) -> str:
        """Where the pack lies in the site's store."""
        return f"{MODELS}{self.slot.model}/{self.slot.release}{CACHES}/{self.engine}.tar"

    def restore(self, store: Store, token: str) -> bool:
        """Whether there is a whole cache now: the node's own, or what the site's engines have kept. Raises
        WeightsError, or OSError where the disk is full."""
        with locked(self._beside(".lock")):
            # An engine that dies at its start leaves a directory, too: only what was packed is whole.
            if self.directory.exists() and self._beside(".packed").exists():
                return True
            stored = store.find(self.key)
            if stored is None or not SIGNATURE_BYTES < stored.size <= MAX_BYTES:
                return False
            with TemporaryFile(dir=self.slot.caches) as pack:
                _download(store, self.key, stored.size, pack)
                if not hmac.compare_digest(_read_signature(pack), self._signature(pack, token)):
                    log.warning("%s: %s is not signed with this site's token: ignored", store.url, self.key)
                    return False
                self._unpack(pack)
            self._beside(".packed").write_text(self._fingerprint())
            return True

    def save(self, store: Store, token: str) -> bool:
        """Whether the cache was stored: not when the store has it, when it is empty or too large. Raises StoreError, or
        OSError where the disk is full or the engine still writes."""
        with locked(self._beside(".lock")):
            fingerprint, packed = self._fingerprint(), self._beside(".packed")
            if not fingerprint or (packed.exists() and packed.read_text() == fingerprint):
                return False
            if sum(path.stat().st_size + MEMBER_BYTES for path in self._files()) > MAX_BYTES:
                log.warning("%s is larger than %s bytes: not kept in the store", self.directory, f"{MAX_BYTES:,}")
                return False
            with TemporaryFile(dir=self.slot.caches) as pack:
                self._pack(pack, token)
                _upload(store, self.key, pack)
            packed.write_text(fingerprint)
            return True

    def _pack(self, pack: IO[bytes], token: str) -> None:
        pack.write(bytes(SIGNATURE_BYTES))
        with tarfile.open(fileobj=pack, mode="w") as tar:
            for path in self._files():
                tar.add(path, path.relative_to(self.directory).as_posix(), recursive=False)
        signature = self._signature(pack, token)
        pack.seek(0)
        pack.write(signature)

    def _unpack(self, pack: IO[bytes]) -> None:
        aside = self._beside(".partial")
        shutil.rmtree(aside, ignore_errors=True)
        pack.seek(SIGNATURE_BYTES)
        try:
            with tarfile.open(fileobj=pack, mode="r:") as tar:
                tar.extractall(aside, filter="data")
        except tarfile.TarError as error:
            raise Corrupt(self.key, str(aside), str(error)) from error
        # One by one, since engines on this node may be using what is there.
        for path in files_below(aside):
            target = self.directory / path.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        shutil.rmtree(aside)

    def _signature(self, pack: IO[bytes], token: str) -> bytes:
        key = blake3(token.encode(), derive_key_context=CONTEXT).digest()
        hasher = blake3(f"{self.key}\n".encode(), key=key)
        pack.seek(SIGNATURE_BYTES)
        for piece in _pieces(pack, PIECE):
            hasher.update(piece)
        return hasher.digest()

    def _fingerprint(self) -> str:
        """Of names and sizes: compiled code is named after what it was made of. Empty when there is none."""
        names = [f"{path.relative_to(self.directory).as_posix()} {path.stat().st_size}" for path in self._files()]
        return blake3("\n".join(names).encode()).hexdigest() if names else ""

    def _files(self) -> list[Path]:
        return sorted(path for path in files_below(self.directory) if not path.is_symlink())

    def _beside(self, suffix: str) -> Path:
        return self.slot.caches / f".{self.engine}{suffix}"


def _download(store: Store, key: str, size: int, pack: IO[bytes]) -> None:
    pace = Pace(store.url)

    def read() -> None:
        pack.seek(0)
        pack.truncate()
        for piece in pace.pieces(store.read(key, 0, size)):
            pack.write(piece)

    pace.retried(read)


def _upload(store: Store, key: str, pack: IO[bytes]) -> None:
    size = pack.seek(0, os.SEEK_END)
    pack.seek(0)
    if size <= PART:
        store.write(key, pack.read())
        return
    pace = Pace(store.url)
    upload = store.upload(key, size)
    # Also what landed already: it may come from another node's cache of the same size.
    for number, piece in enumerate(_pieces(pack, part_bytes(size))):
        pace.retried(partial(upload.send, number, piece))
    pace.retried(upload.complete)


def _read_signature(pack: IO[bytes]) -> bytes:
    pack.seek(0)
    return pack.read(SIGNATURE_BYTES)


def _pieces(pack: IO[bytes], size: int) -> Iterator[bytes]:
    while piece := pack.read(size):
        yield piece
