"""From the stores that have a release to those that should: looked at first, planned, then copied at the same time."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from weights.copying.deliver import Delivery, Terms, deliver
from weights.copying.pace import Bandwidth, Pace
from weights.copying.plan import Inventory, Price, SitePlan, needs
from weights.copying.transfer import Origin, StoredFiles
from weights.errors import Corrupt, ReleaseMissing, StoreError, WeightsError
from weights.manifest import File, Manifest, Part
from weights.parallel import for_each
from weights.releases.lease import held
from weights.releases.registry import history, load_manifest, push_command, release_prefix, stored_files
from weights.store import Store

RELATIVES = 8
"""Other releases of a model whose files are looked at for the same bytes, the newest first."""

Open = Callable[[str], Store]
"""The store of a site. Raises WeightsError."""
TermsFor = Callable[[str], AbstractContextManager[Terms]]


@dataclass(frozen=True)
class Survey:
    """What the stores of some sites hold of a release, or why one can't tell."""

    manifest: Manifest
    inventories: Mapping[str, Inventory]
    failed: Mapping[str, WeightsError]

    @property
    def holders(self) -> tuple[str, ...]:
        """Sites that have it, whole: a marker vouches for no file that was lost since."""
        return tuple(
            site
            for site, inventory in self.inventories.items()
            if inventory.published and not needs(self.manifest, inventory.stored, {}).copy
        )


@dataclass(frozen=True)
class Ask:
    """Who copies, and how many bytes a second each site may take from where it copies; None means no limit."""

    owner: str
    bytes_per_s: float | None = None


@dataclass(frozen=True)
class Held:
    """Somebody else is copying the release to the same store."""

    owner: str


@dataclass(frozen=True)
class Replica:
    """How it went at one site."""

    site: str
    outcome: Delivery | Held | WeightsError


def survey(model: str, release: str, sites: Sequence[str], opened: Open) -> Survey:
    """Looks at the stores of these sites, the first ones being asked first for the manifest, all at the same time.

    Raises ReleaseMissing when none has the release, or what went wrong at the only ones that could.
    """
    found = for_each(lambda site: _look(model, release, site, opened), sites, max(1, len(sites)))
    failed = {site: result for site, result in zip(sites, found, strict=True) if isinstance(result, WeightsError)}
    looked = {site: look for site, look in zip(sites, found, strict=True) if not isinstance(look, WeightsError)}
    manifests = [look.manifest for look in looked.values() if look.manifest is not None]
    if not manifests:
        raise next(iter(failed.values()), None) or ReleaseMissing(
            model, release, ", ".join(look.store.url for look in looked.values()), push_command(model)
        )
    manifest = manifests[0]
    inventories = for_each(lambda site: _inventory(manifest, site, looked[site]), looked, max(1, len(looked)))
    for inventory in inventories:
        if isinstance(inventory, tuple):
            failed[inventory[0]] = inventory[1]
    return Survey(manifest, {one.site: one for one in inventories if isinstance(one, Inventory)}, failed)


def replicate(
    survey: Survey, plans: Sequence[SitePlan], opened: Open, terms_for: TermsFor, price: Price, ask: Ask
) -> tuple[Replica, ...]:
    """Carries out the plans, all at the same time but for sites that wait for their source. A site that fails stops no
    other; its error is in the result.
    """
    copying = _Copying(survey, {plan.site: plan for plan in plans}, opened, terms_for, price, ask)
    return tuple(for_each(copying.at, [plan.site for plan in plans], max(1, len(plans))))


@dataclass(frozen=True)
class _Look:
    store: Store
    stored: Mapping[str, int]
    manifest: Manifest | None


def _look(model: str, release: str, site: str, opened: Open) -> _Look | WeightsError:
    try:
        store = opened(site)
        stored = {item.key: item.size for item in stored_files(store, model, release)}
        try:
            manifest = load_manifest(store, model, release, push_command(model))
        except ReleaseMissing:
            manifest = None
        return _Look(store, stored, manifest)
    except WeightsError as error:
        return error


def _inventory(manifest: Manifest, site: str, look: _Look) -> Inventory | tuple[str, WeightsError]:
    try:
        clones = {} if look.manifest else clones_at(look.store, manifest)
        return Inventory(site, look.stored, clones, look.store.free())
    except WeightsError as error:
        return site, error


def clones_at(store: Store, manifest: Manifest) -> dict[str, str]:
    """Paths of the release whose bytes the store has in other releases of the model, with the key they are at."""
    keys: dict[str, str] = {}
    relatives = [other for other in history(store, manifest.model) if other.release != manifest.release]
    for relative in relatives[:RELATIVES]:
        for file in relative.files:
            keys.setdefault(file.digest, release_prefix(relative.model, relative.release) + file.path)
    return {file.path: keys[file.digest] for file in manifest.files if file.size and file.digest in keys}


class _Copying:
    """Who has the release by now, and who waits for whom."""

    def __init__(
        self,
        survey: Survey,
        plans: Mapping[str, SitePlan],
        opened: Open,
        terms_for: TermsFor,
        price: Price,
        ask: Ask,
    ) -> None:
        self._survey = survey
        self._plans = plans
        self._opened = opened
        self._terms_for = terms_for
        self._price = price
        self._ask = ask
        self._over = {site: threading.Event() for site in plans}
        self._holders = list(survey.holders)

    def at(self, site: str) -> Replica:
        try:
            replica = Replica(site, self._bring(self._plans[site]))
            if isinstance(replica.outcome, Delivery):
                self._holders.append(site)
            return replica
        except WeightsError as error:
            return Replica(site, error)
        finally:
            self._over[site].set()

    def _bring(self, plan: SitePlan) -> Delivery | Held:
        if plan.source in self._over:
            self._over[plan.source].wait()
        manifest, store = self._survey.manifest, self._opened(plan.site)
        with held(store, manifest.model, manifest.release, self._ask.owner) as other:
            if other is not None:
                return Held(other)
            with self._terms_for(plan.site) as terms:
                wire = Bandwidth(self._ask.bytes_per_s) if self._ask.bytes_per_s else None
                origin = origin_of(manifest, self._sources(plan.site), self._opened, wire)
                clones = self._survey.inventories[plan.site].clones
                return deliver(manifest, origin, store, plan.site, terms, clones)

    def _sources(self, site: str) -> list[str]:
        """The cheapest first."""
        return sorted((other for other in self._holders if other != site), key=lambda other: self._price(other, site))


@dataclass(frozen=True)
class FirstOf:
    """Several sources of the same release: what one lacks or has wrong, the next may have right."""

    origins: Sequence[Origin]

    def read(self, file: File, part: Part) -> bytes:
        for origin in self.origins[:-1]:
            try:
                return origin.read(file, part)
            except (Corrupt, StoreError):
                continue
        return self.origins[-1].read(file, part)


def origin_of(manifest: Manifest, sites: Collection[str], opened: Open, wire: Bandwidth | None) -> Origin:
    """The release as the stores of these sites have it, the first one preferred. Opens them when they are needed."""
    prefix = release_prefix(manifest.model, manifest.release)
    return FirstOf([StoredFiles(opened(site), prefix, Pace(site, wire)) for site in sites])
