"""Filters: each says why a site may not serve a request, or None when it may."""

from collections.abc import Callable, Mapping

from clusters.spec import FleetSpec, Task
from clusters.state import Observation, Readiness
from serve_app.routing.candidate import Candidate
from serve_app.routing.facts import Facts

Filter = Callable[[Facts, Candidate, float], str | None]
"""(facts, candidate, now) → the reason for a rejection."""


def fleet_filters(spec: FleetSpec) -> tuple[Filter, ...]:
    """The chain that a fleet's requests pass, cheapest and most telling first."""
    tasks = {model.name: frozenset(model.tasks) for model in spec.models}
    declared = {
        site.name: {placement.model: tasks[placement.model] for placement in spec.placements_at(site.name)}
        for site in spec.sites
    }
    return (pinned, not_tried, serves(declared), fresh(spec.routing.state_max_age_s), ready)


def pinned(facts: Facts, candidate: Candidate, now: float) -> str | None:
    if facts.only_site not in (None, candidate.site):
        return f"the request is for {facts.only_site} only"
    return None


def not_tried(facts: Facts, candidate: Candidate, now: float) -> str | None:
    return f"failed this request: {candidate.failed}" if candidate.failed is not None else None


def serves(declared: Mapping[str, Mapping[str, frozenset[Task]]]) -> Filter:
    """Whether fleet.yaml places the model at the site, for this task."""

    def serves_task(facts: Facts, candidate: Candidate, now: float) -> str | None:
        tasks = declared.get(candidate.site, {}).get(facts.model)
        if tasks is None:
            return f"does not serve {facts.model}"
        if facts.task not in tasks:
            return f"serves {facts.model}, but not for {facts.task}"
        return None

    return serves_task


def fresh(max_age_s: float) -> Filter:
    """Whether the site was heard of lately."""

    def heard_of(facts: Facts, candidate: Candidate, now: float) -> str | None:
        return why_unhealthy(candidate.observation, now, max_age_s)

    return heard_of


def ready(facts: Facts, candidate: Candidate, now: float) -> str | None:
    placement = candidate.placement
    if placement is None:
        return f"does not report {facts.model}"
    if placement.readiness is not Readiness.READY:
        return f"{facts.model} is {placement.readiness}" + (f": {placement.message}" if placement.message else "")
    if placement.replicas * placement.capacity <= 0:
        return f"{facts.model} has no replica that answers"
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
