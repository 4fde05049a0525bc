"""One site, as the filters and the scorer see it for one request."""

from dataclasses import dataclass

from clusters.state import Observation, PlacementState


@dataclass(frozen=True, slots=True)
class Candidate:
    """Everything about the site that a choice may rest on."""

    site: str
    observation: Observation
    placement: PlacementState | None
    """Of the request's model, as the site last reported it."""
    in_flight: int
    """Own leases for the model there."""
    in_flight_since: int
    """Those of them that the observation cannot have counted."""
    failed: str | None
    """Why an earlier attempt of this request failed there."""
