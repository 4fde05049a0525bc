"""What leaves a node's cache when room is needed: what was used least recently, and nothing that somebody counts on."""

import logging
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from weights.errors import DiskFull
from weights.node.disk import allocated_bytes
from weights.node.slot import Slot, slots, sweep

log = logging.getLogger(__name__)

STALE_S = 24 * 3600.0
"""A fetch that was cut short this long ago is no more resumed."""
SHARE_OF_DISK = 0.9
"""What a cache without a size of its own may take."""


class CacheFull(DiskFull):
    """The cache `directory`, with `free` bytes left on its disk, has no room for a release; `reason`: why none goes."""

    def __init__(self, directory: str, needed: int, free: int, reason: str) -> None:
        super().__init__(directory, needed)
        self.args = (directory, needed, free, reason)
        self.free = free
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"no room in {self.directory} for {self.needed:,} bytes, {self.free:,} are free: {self.reason}; "
            "set weights.cache_dir to a larger disk, raise weights.cache_gb, or place fewer models there"
        )


class Claim(StrEnum):
    """Why a release must stay, whatever room is needed."""

    USED = "in use"
    FETCHED = "being fetched"
    KEPT = "pinned"


@dataclass(frozen=True)
class Entry:
    """What a cache holds of one release. `size` in bytes of the disk; `used_at` in seconds since the epoch, and of
    a `partial` one when its fetch began."""

    model: str
    release: str
    size: int
    used_at: float
    partial: bool = False
    claim: Claim | None = None

    def __str__(self) -> str:
        return f"{self.model}/{self.release}" + (" (cut short)" if self.partial else "")


@dataclass(frozen=True)
class Eviction:
    """What goes, in this order. `lacking`: bytes for which there is no room even then."""

    victims: tuple[Entry, ...]
    lacking: int
    reason: str


def choose_evictions(entries: Collection[Entry], needed: int, budget: int, now: float) -> Eviction:
    """What goes so that all entries, and `needed` more bytes, take no more than `budget` bytes: fetches that were cut
    short long ago, then what was used least recently. As many as may go where that is not enough.
    """
    excess = sum(entry.size for entry in entries) + needed - budget
    if excess <= 0:
        return Eviction((), 0, f"there is room for {needed:,} bytes")
    staying = _reasons_to_stay(entries, now)
    victims = []
    for entry in sorted(entries, key=lambda entry: (not entry.partial, entry.used_at)):
        if excess > 0 and entry not in staying:
            victims.append(entry)
            excess -= entry.size
    if excess <= 0:
        return Eviction(tuple(victims), 0, f"{needed:,} bytes are to come, and all may take {budget:,}")
    stay = ", ".join(f"{entry} is {reason}" for entry, reason in staying.items())
    return Eviction(tuple(victims), excess, f"all else must stay: {stay}" if stay else "the cache holds nothing else")


def _reasons_to_stay(entries: Iterable[Entry], now: float) -> dict[Entry, str]:
    reasons = {entry: str(entry.claim) for entry in entries if entry.claim}
    for entry in entries:
        if entry.partial and now - entry.used_at < STALE_S:
            reasons.setdefault(entry, "to be resumed")
    for model in {entry.model for entry in reasons if entry.claim is Claim.USED}:
        if before := _previous(model, entries):
            reasons.setdefault(before, "what its model would go back to")
    return reasons


def _previous(model: str, entries: Iterable[Entry]) -> Entry | None:
    """What the model's replicas used before what they use now. A pinned one may have been fetched only to come."""
    complete = [entry for entry in entries if entry.model == model and not entry.partial]
    current = max(entry.used_at for entry in complete if entry.claim is Claim.USED)
    earlier = [entry for entry in complete if entry.claim is None and entry.used_at < current]
    return max(earlier, key=lambda entry: entry.used_at, default=None)


def make_room(
    cache_dir: Path,
    needed: int,
    cache_bytes: int | None,
    keep: frozenset[str] | None,
    now: float,
    *,
    enough: bool = True,
) -> Eviction:
    """Evicts until `needed` bytes more fit into `cache_bytes` and the disk; nothing where that can't be, unless it need
    not be `enough`. `keep` names "model/release", None all of them. One process at a time."""
    sweep(cache_dir)
    entries = observe(cache_dir, keep)
    eviction = choose_evictions(entries, needed, _budget(cache_dir, cache_bytes, entries), now)
    if enough and eviction.lacking:
        return eviction
    for entry in eviction.victims:
        if _evict(cache_dir, entry):
            hours = (now - entry.used_at) / 3600
            log.warning("%s: %s goes, unused for %.1f h: %s", cache_dir, entry, hours, eviction.reason)
    return eviction


def observe(cache_dir: Path, keep: frozenset[str] | None) -> tuple[Entry, ...]:
    """What the cache holds. One process at a time: each would take another's look for a use."""
    found = []
    for slot in slots(cache_dir):
        claim = Claim.KEPT if keep is None or f"{slot.model}/{slot.release}" in keep else None
        if slot.partial.is_dir():
            fetched = Claim.FETCHED if slot.is_fetched() else None
            size = allocated_bytes(slot.partial)
            found.append(Entry(slot.model, slot.release, size, slot.fetch_begun, True, fetched or claim))
        if slot.complete.is_dir() or slot.caches.is_dir():
            used = Claim.USED if slot.is_used() else None
            size = allocated_bytes(slot.complete, slot.caches)
            found.append(Entry(slot.model, slot.release, size, slot.used_at, False, used or claim))
    return tuple(found)


def _budget(cache_dir: Path, cache_bytes: int | None, entries: Iterable[Entry]) -> int:
    """What the cache may hold: no more than what it holds and what is free."""
    disk = shutil.disk_usage(cache_dir)
    allowed = int(disk.total * SHARE_OF_DISK) if cache_bytes is None else cache_bytes
    return min(allowed, sum(entry.size for entry in entries) + disk.free)


def _evict(cache_dir: Path, entry: Entry) -> bool:
    """Whether it went: somebody may have claimed it since it was looked at."""
    slot = Slot(cache_dir, entry.model, entry.release)
    with slot.unclaimed() as mine:
        if mine:
            slot.discard(*((slot.partial,) if entry.partial else (slot.complete, slot.caches)))
    return mine
