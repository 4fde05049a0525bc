"""Filters: each says why a place may not serve a request, or None when it may. These rest on fleet.yaml and the
request alone; what the moment forbids is in `quotes.py`."""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from clusters.state import Observation
from serve_app.routing.candidates import Candidate
from serve_app.routing.facts import Facts


class Kind(Enum):
    """What a rejection means for the request when no place remains."""

    ASIDE = "the place was never in question"
    FORBIDDEN = "rules forbid it, now and later"
    FULL = "waiting may help"
    OUT = "the place is out of order, or has failed this request"


class Growth(NamedTuple):
    """More replicas may come to a place that takes nothing now, so requests may wait for it: for the least of these."""

    overdue: bool
    """They should have come long ago."""
    idle: bool
    """None is on its way yet."""
    usd_per_slot_s: float
    waking: bool
    """There is none that answers."""


class Rejection(NamedTuple):
    reason: str
    kind: Kind
    growth: Growth | None = None


Filter = Callable[[Facts, Candidate], str | None]


def pinned(facts: Facts, candidate: Candidate) -> str | None:
    if facts.only_site not in (None, candidate.name):
        return f"the request is for {facts.only_site} only"
    return None


def serves_task(facts: Facts, candidate: Candidate) -> str | None:
    if facts.task is None:
        return f"only sites do this for {facts.model}" if candidate.hosted else None
    return None if facts.task in candidate.tasks else f"serves {facts.model}, but not for {facts.task}"


def tenant_allowed(facts: Facts, candidate: Candidate) -> str | None:
    if candidate.tenants and facts.tenant not in candidate.tenants:
        return "does not serve this tenant"
    return None


def in_jurisdiction(facts: Facts, candidate: Candidate) -> str | None:
    if facts.jurisdictions is None or candidate.jurisdiction in facts.jurisdictions:
        return None
    allowed = ", ".join(sorted(facts.jurisdictions)) or "nowhere"
    return f"processes data in {candidate.jurisdiction}; the request may be processed in: {allowed}"


def hosted_allowed(facts: Facts, candidate: Candidate) -> str | None:
    if not candidate.hosted or facts.hosted == "any":
        return None
    if facts.hosted == "no_retention" and not candidate.retains_data:
        return None
    return "may keep prompts" if facts.hosted == "no_retention" else "the request may not leave our own sites"


def fits_context(facts: Facts, candidate: Candidate) -> str | None:
    if candidate.max_model_len < facts.min_context:
        return f"has a context of {candidate.max_model_len} tokens, not {facts.min_context}"
    return None


CHAIN: tuple[tuple[Filter, Kind], ...] = (
    (pinned, Kind.ASIDE),
    (serves_task, Kind.ASIDE),
    (tenant_allowed, Kind.FORBIDDEN),
    (in_jurisdiction, Kind.FORBIDDEN),
    (hosted_allowed, Kind.FORBIDDEN),
    (fits_context, Kind.OUT),
)


def rejection(facts: Facts, candidate: Candidate) -> Rejection | None:
    """The first of the chain."""
    for reject, kind in CHAIN:
        reason = reject(facts, candidate)
        if reason is not None:
            return Rejection(reason, kind)
    return None


def why_unhealthy(observation: Observation, now: float, max_age_s: float) -> str | None:
    """A site is healthy as long as its last good reading is fresh: one failed reading does not condemn it."""
    error = f": {observation.error}" if observation.error else ""
    if observation.read_at is None:
        return f"never observed{error}"
    age_s = now - observation.read_at
    if age_s > max_age_s:
        return f"last observed {age_s:.1f} s ago{error}"
    return None
