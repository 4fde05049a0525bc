"""Presets: settings of the one chain."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clusters.routing import PolicySpec, Preset
from clusters.spec import FleetSpec
from serve_app.routing.quotes import Quote
from serve_app.routing.scores import RANK, Weights

LAST_RESORT = 1000
"""The rank of hosted targets that serve only when no site can."""

NEAR = 0.05
"""Share of the lowest score that is no difference."""


@dataclass(frozen=True)
class Policy:
    """Ranks come before scores: a place of a higher rank is taken only when none of a lower one remains."""

    name: str
    weights: Weights
    near: float
    """Absolute distance from the lowest score that is no difference, in the score's unit."""
    order: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    """Not empty: the site is drawn by these, not by score."""
    spill_load: float | None = None

    def rank(self, quote: Quote) -> int:
        candidate = quote.supply.candidate
        if candidate.last_resort:
            return LAST_RESORT
        if self.order:
            return self.order.get(candidate.name, len(self.order))
        if self.shares:
            return 0 if self.shares.get(candidate.name) else 1
        if self.spill_load is not None:
            return self._overflow(quote, self.spill_load)
        return 0

    @staticmethod
    def _overflow(quote: Quote, spill_load: float) -> int:
        """What is over the load comes last, by dollars."""
        if quote.supply.candidate.hosted:
            return 2
        if quote.load >= spill_load:
            return 3
        return 0 if quote.supply.candidate.prepaid else 1

    def pick(
        self, names: Sequence[str], scores: Sequence[float], cached: Mapping[str, int], rng: random.Random
    ) -> int | None:
        """The index of the lowest score; None when all are infinite. Of near-equals those which have most of the prompt
        in their caches, and at random among these, so that ingress replicas which see the same don't all turn to the
        same site."""
        lowest = min(scores) if scores else math.inf
        if lowest == math.inf:
            return None
        bound = lowest + self.near + NEAR * (lowest % RANK)
        near = [n for n, score in enumerate(scores) if score <= bound]
        if len(near) == 1:
            return near[0]
        if self.shares:
            shares = [self.shares.get(names[n], 0.0) for n in near]
            return rng.choices(near, shares)[0] if any(shares) else rng.choice(near)
        if cached:
            most = max(cached.get(names[n], 0) for n in near)
            near = [n for n in near if cached.get(names[n], 0) == most]
        return near[int(rng.random() * len(near))]


class UnknownPolicy(Exception):
    """The fleet names one that it doesn't have."""


def policies(spec: FleetSpec) -> dict[str, Policy]:
    """Every name that a request may ask for. Raises UnknownPolicy."""
    names = {*(preset.value for preset in Preset), *spec.routing.policies}
    settings = {name: spec.routing.named_policy(name) for name in names}
    known = {name: policy(name, setting) for name, setting in settings.items() if setting is not None}
    named = {spec.routing.policy, *(model.policy for model in spec.models), *(key.policy for key in spec.keys)}
    if unknown := {name for name in named if name is not None} - known.keys():
        # A config that was not rendered from a checked file. Better at the start than with each request.
        raise UnknownPolicy(f"there is no routing policy {', '.join(sorted(unknown))}")
    return known


def policy(name: str, spec: PolicySpec) -> Policy:
    """The preset's weights, with the settings of `spec`."""
    late = spec.usd_per_late_second
    dollars = Weights(tokens=1, egress=1, late=late, target_s=spec.ttft_target_s)
    match spec.preset:
        case Preset.BALANCED:
            return Policy(name, dollars, near=0)
        case Preset.CHEAPEST:
            return Policy(name, Weights(tokens=1, egress=1, late=0.1 * late, target_s=spec.ttft_target_s), near=0)
        case Preset.FASTEST:
            return Policy(name, Weights(seconds=1), near=0.005)
        case Preset.LEAST_LOADED:
            return Policy(name, Weights(load=1), near=0.05)
        case Preset.NEAREST:
            return Policy(name, Weights(round_trip=1), near=0.002)
        case Preset.WEIGHTED:
            return Policy(name, Weights(), near=0, shares=spec.weights)
        case Preset.PRIMARY_STANDBY:
            return Policy(name, dollars, near=0, order={site: rank for rank, site in enumerate(spec.order)})
        case Preset.SPILL:
            return Policy(name, dollars, near=0, spill_load=spec.spill_load)
