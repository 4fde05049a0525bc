"""What nobody needs at a store any more. `collect` decides and says why, `remove` does it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from weights.manifest import MANIFEST, Manifest
from weights.parallel import for_each
from weights.releases.lease import leased_release
from weights.releases.registry import Release, cached_release, history, release_of, release_prefix
from weights.releases.repair import QUARANTINE
from weights.sources.staging import INCOMING
from weights.store import Store, Stored, Unfinished

KEEP = 3
"""The newest releases of each model, which stay whether anybody wants them or not."""
DAY_S = 86400.0
STALE_S = 7 * DAY_S
"""What is on its way and was not touched for so long will never arrive."""
LEASE_S = 3600.0
"""Far longer than a lease lives unrenewed: this machine's clock may not be the store's."""
LEFT_BEHIND = (
    (INCOMING, STALE_S, "staged for a push that never ended"),
    (QUARANTINE, 30 * DAY_S, "corrupt, put aside 30 days ago"),
    (".probe-", STALE_S, "left behind when the store was probed"),
)
THREADS = 8


@dataclass(frozen=True)
class Holdings:
    """All that a store holds."""

    objects: Sequence[Stored]
    unfinished: Sequence[Unfinished]
    manifests: Mapping[Release, Manifest]
    """Of its releases, but for those whose manifest can't be read."""

    @property
    def models(self) -> tuple[str, ...]:
        """Of which anything is there."""
        return tuple(sorted({place[0][0] for item in self.objects if (place := release_of(item.key))}))


@dataclass(frozen=True)
class Garbage:
    """An object to delete or an upload to abort."""

    item: Stored | Unfinished
    why: str

    @property
    def size(self) -> int:
        """Bytes; 0 for an upload, of which no store tells."""
        return self.item.size if isinstance(self.item, Stored) else 0

    @property
    def is_marker(self) -> bool:
        """Whether it makes a release exist."""
        place = release_of(self.item.key)
        return isinstance(self.item, Stored) and place is not None and place[1] == MANIFEST


def collect(holdings: Holdings, wanted: Collection[Release], keep: int, now: float) -> tuple[Garbage, ...]:
    """What may go. `wanted` are the releases that are pinned or that an alias names; these, their parents and the
    `keep` newest of each model stay. `now` is in seconds since the epoch.
    """
    facts = _facts(holdings, wanted, keep, now)
    objects = [Garbage(item, why) for item in holdings.objects if (why := _why(item, facts))]
    uploads = [Garbage(item, why) for item in holdings.unfinished if (why := _why_unfinished(item, facts))]
    return (*objects, *uploads)


def take_stock(store: Store) -> Holdings:
    """Lists the whole store and reads every manifest."""
    listed = Holdings(tuple(store.objects("")), tuple(store.unfinished("")), {})
    manifests = {(model, found.release): found for model in listed.models for found in history(store, model)}
    return replace(listed, manifests=manifests)


def everything_of(store: Store, model: str, release: str, why: str) -> tuple[Garbage, ...]:
    """All that lies under a release or is on its way there."""
    prefix = release_prefix(model, release)
    items: tuple[Stored | Unfinished, ...] = (*store.objects(prefix), *store.unfinished(prefix))
    return tuple(Garbage(item, why) for item in items)


def remove(store: Store, garbage: Iterable[Garbage]) -> None:
    """Deletes and aborts. The markers go first: no release is seen whole while its files go."""
    found = tuple(garbage)
    for markers in (True, False):
        for_each(lambda one: _remove(store, one), [one for one in found if one.is_marker is markers], THREADS)


@dataclass(frozen=True)
class _Facts:
    """What must be known of all objects to judge one."""

    published: frozenset[Release]
    stay: frozenset[Release]
    copied: frozenset[Release]
    """Somebody has a lease on them."""
    ages: Mapping[str, float]
    """Seconds since the latest write to each unit."""
    now: float


def _facts(holdings: Holdings, wanted: Collection[Release], keep: int, now: float) -> _Facts:
    ages: dict[str, float] = {}
    published, copied = set(holdings.manifests), set()
    for item in holdings.objects:
        unit, age = _unit(item.key), now - item.modified
        ages[unit] = min(age, ages.get(unit, age))
        if (place := release_of(item.key)) and place[1] == MANIFEST:
            published.add(place[0])
        if (leased := leased_release(item.key)) and age <= LEASE_S:
            copied.add(leased)
    unread = published - holdings.manifests.keys()  # nobody knows how new these are
    stay = {*wanted, *_parents(holdings.manifests, wanted), *_newest(holdings.manifests, keep), *unread, *copied}
    return _Facts(frozenset(published), frozenset(stay), frozenset(copied), ages, now)


def _unit(key: str) -> str:
    """What lives and dies together: a release, the files of one push, else an object by itself."""
    if place := release_of(key):
        return release_prefix(*place[0])
    return "/".join(key.split("/", 2)[:2]) if key.startswith(INCOMING) else key


def _parents(manifests: Mapping[Release, Manifest], wanted: Collection[Release]) -> Iterator[Release]:
    for model, release in wanted:
        manifest = manifests.get((model, release))
        if manifest is not None and manifest.parent is not None:
            yield model, manifest.parent


def _newest(manifests: Mapping[Release, Manifest], keep: int) -> Iterator[Release]:
    of_model: dict[str, list[Release]] = defaultdict(list)
    for release in sorted(manifests, key=lambda each: (manifests[each].created, each), reverse=True):
        of_model[release[0]].append(release)
    for newest_first in of_model.values():
        yield from newest_first[:keep]


def _why(item: Stored, facts: _Facts) -> str | None:
    """Why the object may go, if it may."""
    age = facts.ages[_unit(item.key)]
    if place := release_of(item.key):
        return _why_release(place[0], age, facts)
    if leased_release(item.key):
        return "leases that nobody renews" if age > LEASE_S else None
    if release := cached_release(item.key):
        absent = release not in facts.published | facts.stay
        return f"{' '.join(release)}: caches of a release that is not here" if absent and age > STALE_S else None
    for prefix, limit, why in LEFT_BEHIND:
        if item.key.startswith(prefix):
            return why if age > limit else None
    return None


def _why_release(release: Release, age: float, facts: _Facts) -> str | None:
    name = " ".join(release)
    if release in facts.stay:
        return None
    if release in facts.published:
        return f"{name}: neither pinned, aliased, parent of such a release, nor among the newest"
    return f"{name}: never complete, and nothing came for 7 days" if age > STALE_S else None


def _why_unfinished(upload: Unfinished, facts: _Facts) -> str | None:
    place = release_of(upload.key)
    if (place and place[0] in facts.copied) or facts.now - upload.begun <= STALE_S:
        return None
    return "uploads that were begun 7 days ago or earlier"


def _remove(store: Store, garbage: Garbage) -> None:
    if isinstance(garbage.item, Unfinished):
        store.abort(garbage.item)
    else:
        store.delete(garbage.item.key)
