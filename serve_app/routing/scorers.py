"""Scorers: what a site would cost a request, on an absolute scale. Less is better."""

import math
from collections.abc import Callable

from serve_app.routing.candidate import Candidate
from serve_app.routing.facts import Facts

Scorer = Callable[[Facts, Candidate], float]


def requests_per_slot(facts: Facts, candidate: Candidate) -> float:
    """Requests that the placement has, per request that it can run at once: above 1, this one would queue.

    The site's own count knows other ingress replicas' requests, ours knows the latest: each fills the other's gap.
    """
    placement = candidate.placement
    if placement is None:
        return math.inf
    reported = (placement.running or 0) + (placement.waiting or 0)
    load = max(reported + candidate.in_flight_since, candidate.in_flight)
    return load / (placement.replicas * placement.capacity)
