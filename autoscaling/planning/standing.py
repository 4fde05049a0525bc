"""What one look at the fleet says of each placement."""

from dataclasses import dataclass

from autoscaling.signals import Signal, known
from clusters.spec import FleetSpec, PlacementSpec
from clusters.state import Bounds, FleetState, Observation, PlacementState, Readiness, SiteState


@dataclass(frozen=True, slots=True)
class Standing:
    """One placement. Loads are requests; None means that nothing is known."""

    spec: PlacementSpec
    heard: bool = False
    load: float | None = None
    """Running, waiting and held."""
    waiting: float = 0.0
    """Of the load, what no engine works on yet."""
    replicas: int = 0
    """That answer."""
    staying: int = 0
    """Of these, the ones on nodes that the provider leaves."""
    starting: int = 0
    serves: bool = False
    """Its replicas may be counted on: its site is heard, does not drain, and may process the model's requests."""
    failed: bool = False
    why_no_more: str = "is not heard from"
    """Why the planner may ask for none here; empty when it may."""
    bounds: Bounds | None = None
    """In force, of this planner or of the one before it."""

    @property
    def site(self) -> str:
        return self.spec.site


def standings(fleet: FleetSpec, seen: FleetState, model: str, now: float) -> tuple[Standing, ...]:
    """Of every placement of a model, in the order of the fleet. `now` is in monotonic seconds."""
    return tuple(_standing(fleet, spec, seen, now) for spec in fleet.placements if spec.model == model)


def _standing(fleet: FleetSpec, spec: PlacementSpec, seen: FleetState, now: float) -> Standing:
    site = _heard(seen.observations.get(spec.site), now, fleet.routing.state_max_age_s)
    placement = site.placement(spec.model) if site else None
    if site is None or placement is None:
        return Standing(spec)
    forbidden = _forbidden(fleet, spec, site)
    return Standing(
        spec,
        heard=True,
        load=_load(placement, now),
        waiting=(known(placement.waiting) or 0.0) + (known(placement.held) or 0.0),
        replicas=placement.replicas,
        staying=max(0, placement.replicas - placement.leaving),
        starting=max(0, placement.target_replicas - placement.replicas),
        serves=not forbidden,
        failed=placement.readiness is Readiness.FAILED,
        why_no_more=forbidden or _why_no_more(fleet, spec, site, placement),
        bounds=placement.bounds,
    )


def _heard(seen: Observation | None, now: float, max_age_s: float) -> SiteState | None:
    if seen is None or seen.read_at is None or now - seen.read_at > max_age_s:
        return None
    return seen.state


def _load(placement: PlacementState, now: float) -> float | None:
    """Where nothing is ready and nothing has failed, no request runs: whoever holds one for it says so."""
    signal = Signal(now, placement.running, placement.waiting, placement.held, ready=placement.replicas)
    idle = placement.replicas == 0 and placement.readiness is not Readiness.FAILED
    return 0.0 if signal.load is None and idle else signal.load


def _forbidden(fleet: FleetSpec, spec: PlacementSpec, site: SiteState) -> str:
    allowed = fleet.model(spec.model).jurisdictions
    if allowed and fleet.site(spec.site).jurisdiction not in allowed:
        return "may not process the model's requests"
    return "is draining" if site.drain_s is not None else ""


def _why_no_more(fleet: FleetSpec, spec: PlacementSpec, site: SiteState, placement: PlacementState) -> str:
    if placement.readiness is Readiness.FAILED:
        return "has failed"
    if {notice.pool for notice in site.notices}.issuperset(spec.pools):
        return "has nodes that the provider takes back"
    return "" if site.has_release(spec.model, fleet.model(spec.model).release) else "does not have the release"
