"""What the ingress knows of its sites, for operators: `/fleet/sites`, `/healthz` and the gauges."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from clusters.state import FleetState, PlacementState
from serve_app.routing.filters import why_unhealthy
from serve_app.routing.leases import Place


class SiteReport(BaseModel):
    """One site."""

    model_config = ConfigDict(frozen=True)

    site: str
    healthy: bool
    reason: str
    """Why it is not healthy, or what went wrong at the latest reading."""
    age_s: float | None
    round_trip_s: float | None
    leases: dict[str, int]
    """This ingress replica's requests in flight, per model."""
    placements: tuple[PlacementState, ...]


def site_reports(
    fleet: FleetState, leases: Mapping[Place, int], now: float, state_max_age_s: float
) -> tuple[SiteReport, ...]:
    """Every site of the fleet."""
    reports = []
    for site, observation in fleet.observations.items():
        unhealthy = why_unhealthy(observation, now, state_max_age_s)
        reports.append(
            SiteReport(
                site=site,
                healthy=unhealthy is None,
                reason=unhealthy or observation.error,
                age_s=now - observation.read_at if observation.read_at is not None else None,
                round_trip_s=observation.round_trip_s,
                leases={model: count for (place, model), count in leases.items() if place == site},
                placements=observation.state.placements if observation.state else (),
            )
        )
    return tuple(reports)
