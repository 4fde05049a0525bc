"""The present standing of every place of one model, kept up to date by what changes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from clusters.spec import FleetSpec
from clusters.state import FleetState, Observation
from serve_app.routing.books import Books
from serve_app.routing.candidates import candidates
from serve_app.routing.facts import Facts
from serve_app.routing.filters import Kind, Rejection, rejection
from serve_app.routing.policies import Policy
from serve_app.routing.quotes import Quote, Supply, hosted_supply, quote, site_supply
from serve_app.routing.scores import Offer, offer

SWEEP_S = 0.25
"""After which every supply is looked at anew: measurements, ramps and ages move with time alone."""
NOTICEABLE = 1 / 64
"""Share of a place's slots by which our requests there must change before it is quoted anew, within a sweep."""
MAX_KINDS = 256
"""Kinds of requests whose permitted places are remembered."""
NOT_READ = Rejection("not read yet", Kind.OUT)


@dataclass(frozen=True, slots=True)
class Permitted:
    """The places that rules allow for one kind of request. The moment does not enter."""

    names: tuple[str, ...]
    position: dict[str, int]
    """Of a name in `names`."""
    sites: dict[str, int]
    """The same without hosted targets, whose caches are not ours to know."""
    offers: Callable[[Sequence[Offer]], tuple[Offer, ...]]
    """Those of these places, out of a board's."""
    rejections: dict[str, Rejection]
    """Of all other places."""


class Board:
    """Of one model."""

    def __init__(self, spec: FleetSpec, model: str, books: Books):
        self._spec = spec
        self._books = books
        known = any(served.name == model for served in spec.models)
        self._candidates = candidates(spec, model) if known else ()
        self._index = {candidate.name: n for n, candidate in enumerate(self._candidates)}
        self._hosted = [target.name for target in spec.hosted]
        names = (*(site.name for site in spec.sites), *self._hosted)
        self._absent = {
            name: Rejection(f"does not serve {model}", Kind.ASIDE) for name in names if name not in self._index
        }
        self._tenants = {tenant for candidate in self._candidates for tenant in candidate.tenants}
        """Those that make a difference."""
        self._permitted: dict[tuple[object, ...], Permitted] = {}
        self._observations = [Observation(site=candidate.name) for candidate in self._candidates]
        self._supplies: list[Supply | Rejection] = [NOT_READ] * len(self._candidates)
        self._quoted_at = [-math.inf] * len(self._candidates)
        """Our requests at each place, when it was last quoted."""
        self._offers: dict[str, tuple[Policy, list[Offer]]] = {}
        self._fleet: FleetState | None = None
        self._swept_at = -math.inf
        self._changed: set[int] = set()
        """Candidates whose supply is out of date,"""
        self._moved: set[int] = set()
        """or only the number of our requests there."""
        self._resupplied: set[int] = set()

    def permitted(self, facts: Facts) -> Permitted:
        """By fleet.yaml and the request alone."""
        tenant = facts.tenant if facts.tenant in self._tenants else ""
        # All that the filters read.
        kind = (facts.task, tenant, facts.jurisdictions, facts.hosted, facts.only_site, facts.min_context)
        permitted = self._permitted.get(kind)
        if permitted is None:
            if len(self._permitted) >= MAX_KINDS:
                self._permitted.clear()
            permitted = self._permitted[kind] = self._filter(facts)
        return permitted

    def changed(self, name: str) -> None:
        """The verdict on that place is another one."""
        n = self._index.get(name)
        if n is not None:
            self._changed.add(n)

    def moved(self, name: str) -> None:
        """We have more or fewer requests there."""
        n = self._index.get(name)
        if n is not None:
            self._moved.add(n)

    def offers(self, policy: Policy, fleet: FleetState, now: float) -> list[Offer]:
        """Of every place. Later calls change the list."""
        if fleet is not self._fleet:
            self._read(fleet)
        if not 0 <= now - self._swept_at < SWEEP_S:
            self._changed.update(range(len(self._candidates)))
            self._swept_at = now
        if self._changed:
            self._supply(now)
        if self._moved:
            self._quote()
        known = self._offers.get(policy.name)
        if known is None:
            offers = [_offer(self._standing(n), policy) for n in range(len(self._candidates))]
            known = self._offers[policy.name] = (policy, offers)
        return known[1]

    def _filter(self, facts: Facts) -> Permitted:
        rejections = dict(self._absent)
        indices = []
        for n, candidate in enumerate(self._candidates):
            rejected = rejection(facts, candidate)
            if rejected is None:
                indices.append(n)
            else:
                rejections[candidate.name] = rejected
        names = tuple(self._candidates[n].name for n in indices)
        position = {name: n for n, name in enumerate(names)}
        sites = {name: n for name, n in position.items() if name not in self._hosted}
        return Permitted(names, position, sites, _selector(indices), rejections)

    def _read(self, fleet: FleetState) -> None:
        self._fleet = fleet
        observations = fleet.observations
        for name, n in self._index.items():
            observation = observations.get(name)
            if observation is not None and observation is not self._observations[n]:
                self._observations[n] = observation
                self._changed.add(n)

    def _supply(self, now: float) -> None:
        for n in self._changed:
            candidate = self._candidates[n]
            self._supplies[n] = (
                hosted_supply(candidate, self._books, now)
                if candidate.hosted
                else site_supply(candidate, self._observations[n], self._books, self._spec.routing, now)
            )
        self._moved |= self._changed
        self._resupplied = self._changed
        self._changed = set()

    def _quote(self) -> None:
        for n in self._moved:
            supply = self._supplies[n]
            if isinstance(supply, Supply):
                requests = self._books.leases.in_flight(*supply.candidate.place)
                measured = supply.rates is not None and n not in self._resupplied
                if measured and abs(requests - self._quoted_at[n]) < NOTICEABLE * supply.slots:
                    continue
                self._quoted_at[n] = requests
            standing = self._standing(n)
            for policy, offers in self._offers.values():
                offers[n] = _offer(standing, policy)
        self._moved.clear()
        self._resupplied = set()

    def _standing(self, n: int) -> Quote | Rejection:
        supply = self._supplies[n]
        return quote(supply, self._books.leases) if isinstance(supply, Supply) else supply


def _offer(standing: Quote | Rejection, policy: Policy) -> Offer:
    return offer(standing, policy.weights, policy.rank(standing) if isinstance(standing, Quote) else 0)


def _selector(indices: list[int]) -> Callable[[Sequence[Offer]], tuple[Offer, ...]]:
    if len(indices) > 1:
        return itemgetter(*indices)
    return lambda offers: tuple(offers[n] for n in indices)
