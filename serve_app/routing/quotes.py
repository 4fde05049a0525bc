"""What a place would take for a request at this moment, or why it takes none."""

from bisect import bisect_right
from typing import NamedTuple

from clusters.routing import RoutingSpec
from clusters.state import Observation, PlacementState, Readiness, SiteState
from serve_app.routing.books import Books
from serve_app.routing.candidates import Candidate
from serve_app.routing.filters import Growth, Kind, Rejection, why_unhealthy
from serve_app.routing.health import Verdict
from serve_app.routing.latency import BANDS
from serve_app.routing.leases import Leases

BATCH_SLOWDOWN = 0.2
"""By which a full batch's tokens take longer than an empty one's."""
EXPLORE = 2
"""Own requests in flight up to which an unmeasured place counts as fast as the model's best."""
UNKNOWN_SLOWNESS = 4.0
"""Beyond that it counts as so many times slower."""
HOSTED_ROUND_TRIP_S = 0.05


class Supply(NamedTuple):
    """What a place has to give. It changes with readings, verdicts and measurements, not with every request."""

    candidate: Candidate
    slots: float
    """Requests that it runs at once."""
    max_load: float
    """Requests per slot at which it takes no more."""
    growth: Growth | None
    """Whether requests may wait for it then."""
    reported: int | None
    """Requests that the site counted at `read_at`; None when that is too old to say anything."""
    read_at: float
    round_trip_s: float
    rates: tuple[float, ...] | None
    """Seconds per prefill token, by band of load; None: unmeasured."""
    best_rate: float
    """The model's, anywhere."""
    seconds_per_token: float
    service_s: float
    """Of a mean answer."""
    deviation_s: float
    probe: bool


class Quote(NamedTuple):
    """Supply at its present load."""

    supply: Supply
    load: float
    """Requests per slot, without this one."""
    queue_s: float
    prefill_rate: float
    """Seconds per uncached prompt token."""
    usd_per_slot_s: float


def quote(supply: Supply, leases: Leases) -> Quote | Rejection:
    """Of one supply with the requests that we have there."""
    candidate = supply.candidate
    requests = leases.requests(candidate.place, supply.reported, supply.read_at)
    load = requests / supply.slots
    if load >= supply.max_load:
        return Rejection(f"full: {load:.1f} requests per slot", Kind.FULL, supply.growth)
    if supply.rates is not None:
        rate = supply.rates[bisect_right(BANDS, load)]
    else:
        exploring = leases.in_flight(*candidate.place) < EXPLORE
        rate = supply.best_rate if exploring else supply.best_rate * UNKNOWN_SLOWNESS
    if load >= 1:
        usd = candidate.usd_per_slot_s * (1 + BATCH_SLOWDOWN)
        return Quote(supply, load, (load - 1) * supply.service_s, rate, usd)
    usd = candidate.usd_per_idle_slot_s * (1 + BATCH_SLOWDOWN * load)
    return Quote(supply, load, 0.0, rate, usd)


def site_supply(
    candidate: Candidate, observation: Observation, books: Books, routing: RoutingSpec, now: float
) -> Supply | Rejection:
    """Of a site's placement. One whose state is too old counts as long as answers come from there."""
    stale = why_unhealthy(observation, now, routing.state_max_age_s)
    if stale is not None:
        heard_at = books.health.heard_at(*candidate.place)
        if heard_at is None or now - heard_at > routing.state_max_age_s:
            return Rejection(stale, Kind.FULL if _late(observation) else Kind.OUT)
    placement = observation.state.placement(candidate.model) if observation.state is not None else None
    out = _out_of_order(candidate, observation, placement, believed=stale is None)
    if out is not None:
        return out
    verdict = books.health.verdict(*candidate.place, now)
    if verdict.ejected is not None:
        return Rejection(verdict.ejected, Kind.FULL if verdict.resting else Kind.OUT)
    slots, reported, growth = candidate.slots, None, None
    if placement is not None:
        slots = placement.replicas * placement.capacity or slots
        if stale is None:
            reported = (placement.running or 0) + (placement.waiting or 0)
            growth = _growth(candidate, observation.state, placement)
    return _supply(
        candidate,
        books,
        verdict,
        now,
        slots=slots,
        max_load=routing.hold.max_load,
        growth=growth,
        reported=reported,
        read_at=observation.read_at or 0.0,
        round_trip_s=observation.round_trip_s or 0.0,
    )


def hosted_supply(candidate: Candidate, books: Books, now: float) -> Supply | Rejection:
    """Of a hosted target."""
    verdict = books.health.verdict(*candidate.place, now)
    if verdict.ejected is not None:
        return Rejection(verdict.ejected, Kind.FULL if verdict.resting else Kind.OUT)
    return _supply(
        candidate, books, verdict, now, slots=candidate.slots, max_load=1.0, round_trip_s=HOSTED_ROUND_TRIP_S
    )


def _late(observation: Observation) -> bool:
    """The latest reading did not fail, and the next one is under way: in a moment it is known how the site is."""
    return observation.read_at is not None and not observation.error


def _out_of_order(
    candidate: Candidate, observation: Observation, placement: PlacementState | None, believed: bool
) -> Rejection | None:
    """A state that is too old still tells of drains and releases: requests that succeed contradict only the rest."""
    model = candidate.model
    if observation.state is not None and observation.state.drain_s is not None:
        return Rejection("draining", Kind.OUT)
    if placement is None:
        return Rejection(f"does not report {model}", Kind.OUT) if believed else None
    if placement.release != candidate.release:
        return Rejection(f"serves release {placement.release}, not {candidate.release}", Kind.OUT)
    if not believed:
        return None
    reason = f"{model} is {placement.readiness}" + (f": {placement.message}" if placement.message else "")
    if placement.readiness is Readiness.FAILED:
        return Rejection(reason, Kind.OUT)
    growth = _growth(candidate, observation.state, placement)
    if placement.readiness is not Readiness.READY:
        return Rejection(reason, Kind.FULL, growth)
    if placement.replicas * placement.capacity <= 0:
        return Rejection(f"{model} has no replica that answers", Kind.FULL, growth)
    return None


def _growth(candidate: Candidate, state: SiteState | None, placement: PlacementState) -> Growth | None:
    """None where all replicas that may be are wanted already and answer, or where no new one would find its weights."""
    most = candidate.max_replicas
    if placement.bounds is not None and placement.bounds.max_replicas is not None:
        most = min(most, placement.bounds.max_replicas)
    coming = placement.target_replicas > placement.replicas
    if state is None:
        return None
    may_grow = placement.target_replicas < most and state.has_release(candidate.model, candidate.release)
    if not coming and not may_grow:
        return None
    waking = placement.replicas == 0
    overdue = waking and coming and state.at - (placement.since or state.at) > candidate.start_up_deadline_s
    return Growth(overdue, not coming, candidate.usd_per_slot_s, waking)


def _supply(
    candidate: Candidate,
    books: Books,
    verdict: Verdict,
    now: float,
    *,
    slots: int,
    max_load: float,
    round_trip_s: float,
    growth: Growth | None = None,
    reported: int | None = None,
    read_at: float = 0.0,
) -> Supply:
    latency = books.latency
    seconds_per_token = latency.seconds_per_token(*candidate.place, now)
    return Supply(
        candidate=candidate,
        slots=slots * verdict.share,
        max_load=max_load,
        growth=growth,
        reported=reported,
        read_at=read_at,
        round_trip_s=round_trip_s,
        rates=latency.rates(*candidate.place, now),
        best_rate=latency.best_rate(candidate.model),
        seconds_per_token=seconds_per_token,
        service_s=latency.output_tokens(candidate.model) * seconds_per_token,
        deviation_s=latency.deviation_s(*candidate.place),
        probe=verdict.probe,
    )
