"""Most replicas: a dear site does not grow for a burst for which cheaper replicas are already starting."""

from dataclasses import dataclass, replace

from autoscaling.planning.memory import PlaceMemory
from autoscaling.planning.standing import Standing
from autoscaling.planning.view import View


@dataclass(frozen=True, slots=True)
class Cover:
    """Replicas that start at a site for requests which the ready ones are not for."""

    site: str
    usd_per_hour: float
    """Of the last of them."""
    start_up_s: float


def ceiling(standing: Standing, place: PlaceMemory, view: View, now: float) -> PlaceMemory:
    """It never takes what the site has or has asked for, lasts no longer than the cheaper replicas take to start, and
    once lifted stays lifted for `scale_down_delay_s`."""
    scaling = standing.spec.autoscaling
    most = max(standing.replicas + standing.starting, place.floor, place.ceiling or 0, scaling.min_replicas)
    cover = _cover(standing, view)
    if cover is not None and most < scaling.max_replicas and _may(standing, place, view, cover, now):
        reason = (
            f"at most {most}: replicas start at {cover.site} for the same requests, "
            f"for {cover.usd_per_hour:.2f} instead of {_price(standing, view):.2f} USD an hour"
        )
        return replace(
            place,
            ceiling=most,
            ceiling_reason=reason,
            turned_at=now if place.ceiling is None else place.turned_at,
        )
    if place.ceiling is None:
        return place
    return replace(place, ceiling=None, ceiling_reason="", turned_at=now)


def _may(standing: Standing, place: PlaceMemory, view: View, cover: Cover, now: float) -> bool:
    """In dollars: what waits here until the cheaper replicas are there, against a replica of the site's own."""
    scaling = standing.spec.autoscaling
    if place.ceiling is None:
        wait_s = cover.start_up_s
        if now - place.turned_at < scaling.scale_down_delay_s:
            return False
    else:
        wait_s = cover.start_up_s - (now - place.turned_at)
        if wait_s <= 0:
            return False
    own = view.supplies[standing.site]
    late = view.usd_per_late_second * standing.waiting * max(0.0, wait_s - own.start_up_s)
    return late <= own.cost(_next(standing), 0.0, 0.0)


def _cover(standing: Standing, view: View) -> Cover | None:
    """The first that is there; None where some of the load has no cheaper replica coming: then the site scales by
    itself."""
    shares = view.least
    if not view.movable or not standing.serves or standing.load is None or view.demand.lost:
        return None
    if shares.short <= 0 or shares.unserved > 0:
        return None
    covers = [_cover_at(other, view) for other in view.standings if other.site in shares.extra]
    own_price = _price(standing, view)
    if any(each.site == standing.site or each.usd_per_hour >= own_price for each in covers):
        return None
    return min(covers, key=lambda each: each.start_up_s, default=None)


def _cover_at(standing: Standing, view: View) -> Cover:
    supply = view.supplies[standing.site]
    last = standing.staying + view.least.extra[standing.site]
    return Cover(standing.site, supply.price(last), supply.start_up_s)


def _next(standing: Standing) -> int:
    return standing.replicas + standing.starting + 1


def _price(standing: Standing, view: View) -> float:
    return view.supplies[standing.site].price(_next(standing))
