"""What the ingress knows of its sites, for operators: `/fleet/sites`, `/healthz` and the gauges."""

from pydantic import BaseModel, ConfigDict

from clusters.spec import FleetSpec
from clusters.state import FleetState, NodeNotice, PlacementState, ReleaseState
from serve_app.routing.books import Books
from serve_app.routing.filters import why_unhealthy


class SiteReport(BaseModel):
    """One site."""

    model_config = ConfigDict(frozen=True)

    site: str
    healthy: bool
    reason: str
    """Why it is not healthy, or what went wrong at the latest reading."""
    draining: bool
    age_s: float | None
    round_trip_s: float | None
    leases: dict[str, int]
    """This ingress replica's requests in flight, per model."""
    ejected: dict[str, str]
    """Models that get no requests there, or none but the one that decides, since requests failed; and why."""
    shares: dict[str, float]
    """Of their capacity, that models may be given there: less than 1 while they come back."""
    placements: tuple[PlacementState, ...]
    releases: tuple[ReleaseState, ...]
    notices: tuple[NodeNotice, ...]
    """Nodes that the provider takes back."""


def site_reports(
    spec: FleetSpec, fleet: FleetState, books: Books, now: float, state_max_age_s: float
) -> tuple[SiteReport, ...]:
    """Every site of the fleet."""
    open_leases = books.leases.open()
    reports = []
    for site, observation in fleet.observations.items():
        unhealthy = why_unhealthy(observation, now, state_max_age_s)
        state = observation.state
        models = [placement.model for placement in spec.placements_at(site)]
        verdicts = {model: books.health.verdict(site, model, now) for model in models}
        reports.append(
            SiteReport(
                site=site,
                healthy=unhealthy is None,
                reason=unhealthy or observation.error,
                draining=state is not None and state.drain_s is not None,
                age_s=now - observation.read_at if observation.read_at is not None else None,
                round_trip_s=observation.round_trip_s,
                leases={model: count for (place, model), count in open_leases.items() if place == site},
                ejected={model: verdict.illness for model, verdict in verdicts.items() if verdict.illness},
                shares={model: verdict.share for model, verdict in verdicts.items()},
                placements=state.placements if state is not None else (),
                releases=state.releases if state is not None else (),
                notices=state.notices if state is not None else (),
            )
        )
    return tuple(reports)
