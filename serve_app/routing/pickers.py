"""Pickers: from scores to one site."""

import random
from collections.abc import Callable, Mapping

Picker = Callable[[Mapping[str, float]], str]
"""From at least one score to the site."""


def lowest(rng: random.Random, near: float = 0.05) -> Picker:
    """The lowest score; at random among those less than `near` above it, so that ingress replicas which see the same
    scores don't all turn to the same site."""

    def pick(scores: Mapping[str, float]) -> str:
        bound = min(scores.values()) + near
        return rng.choice([site for site, score in scores.items() if score <= bound])

    return pick
