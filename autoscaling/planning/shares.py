"""Dividing a model's requests among its sites: one replica after the other, each where it costs least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaling.needs import ROUNDING
from autoscaling.planning.demand import Demand
from autoscaling.planning.memory import PlaceMemory
from autoscaling.planning.standing import Standing
from autoscaling.planning.supply import Supply


@dataclass(frozen=True, slots=True)
class Shares:
    """Replicas by site."""

    short: float
    """Requests beyond those that the ready replicas are for."""
    extra: Mapping[str, int]
    """Beyond the ready ones: what starts and is needed, and what should be asked for."""
    unserved: float
    """Of the short ones, requests that no site has room for."""
    steady: Mapping[str, int]
    """What would carry the steady load for the least, with no fewer than each site's `min_replicas`."""


def shares(
    usable: Sequence[Standing],
    places: Mapping[str, PlaceMemory],
    supplies: Mapping[str, Supply],
    demand: Demand,
    usd_per_late_second: float,
    now: float,
) -> Shares:
    """Replicas that start already come before others, whatever these would cost."""
    ready = {each.site: each.staying for each in usable}
    promised = {each.site: each.staying + promise(each, places[each.site], now) for each in usable}
    idle = _idle(usable, supplies, demand)
    room = {
        each.site: promised[each.site]
        if each.site in idle
        else _room(each, places[each.site], supplies[each.site], promised[each.site], now)
        for each in usable
    }
    short = _short(usable, supplies, demand)
    waiting = min(demand.waiting, short)
    started, left = fill(short, ready, promised, supplies, waiting, usd_per_late_second)
    wanted, unserved = fill(left, started, room, supplies, min(waiting, left), usd_per_late_second)
    return Shares(
        short=short,
        extra={site: wanted[site] - count for site, count in ready.items() if wanted[site] > count},
        unserved=unserved,
        steady=_steady(usable, supplies, demand),
    )


def fill(
    requests: float,
    have: Mapping[str, int],
    most: Mapping[str, int],
    supplies: Mapping[str, Supply],
    waiting: float,
    usd_per_late_second: float,
) -> tuple[dict[str, int], float]:
    """`have` and what more is needed for so many requests, of which `waiting` wait; and those that found no room."""
    counts = dict(have)
    while requests > ROUNDING:
        open_sites = [site for site, count in counts.items() if count < most[site]]
        if not open_sites:
            break
        best = min(
            (supplies[site] for site in open_sites),
            key=lambda each: each.preference(counts[each.site] + 1, min(waiting, each.requests), usd_per_late_second),
        )
        counts[best.site] += 1
        requests -= best.requests
        waiting = max(0.0, waiting - best.requests)
    return counts, max(0.0, requests)


def _short(usable: Sequence[Standing], supplies: Mapping[str, Supply], demand: Demand) -> float:
    load = demand.load - sum(_content(each, supplies[each.site], demand) for each in usable)
    return max(0.0, load - sum(supplies[each.site].requests * each.staying for each in usable))


def _steady(usable: Sequence[Standing], supplies: Mapping[str, Supply], demand: Demand) -> Mapping[str, int]:
    least = {each.site: each.spec.autoscaling.min_replicas for each in usable}
    most = {each.site: supplies[each.site].most for each in usable}
    left = demand.steady - sum(supplies[site].requests * count for site, count in least.items())
    return fill(left, least, most, supplies, 0.0, 0.0)[0]


def promise(standing: Standing, place: PlaceMemory, now: float) -> int:
    """Replicas that are on their way: they start, or the site was asked for them."""
    if not standing.serves or standing.failed or overdue(standing, place, now):
        return 0
    return max(standing.starting, 0 if standing.why_no_more else place.floor - standing.staying)


def overdue(standing: Standing, place: PlaceMemory, now: float) -> bool:
    return place.coming is not None and now - place.coming.since > standing.spec.autoscaling.start_up_deadline_s


def with_spare(standing: Standing, supply: Supply) -> Supply:
    """As far as its replicas may be filled before others go."""
    return replace(supply, requests=supply.requests * (1 - standing.spec.autoscaling.scale_down_margin))


def _content(standing: Standing, supply: Supply, demand: Demand) -> float:
    """Requests that a site which cannot grow runs beyond its target. As long as they don't wait the router keeps them
    there, and replicas elsewhere would get none of them."""
    if standing.staying < supply.most:
        return 0.0
    beyond = demand.loads.get(standing.site, 0.0) - standing.staying * supply.requests
    return max(0.0, beyond - standing.waiting)


def _idle(usable: Sequence[Standing], supplies: Mapping[str, Supply], demand: Demand) -> frozenset[str]:
    """Sites that need no more, as they get no requests. None after a loss: what was served elsewhere a moment ago may
    not have come yet."""
    if demand.lost or any(each.staying < each.replicas for each in usable):
        return frozenset()
    return frozenset(each.site for each in usable if _hardly_used(each, supplies[each.site], demand))


def _hardly_used(standing: Standing, supply: Supply, demand: Demand) -> bool:
    """Its ready replicas are not half used: the router keeps requests elsewhere, though they could be here."""
    load = demand.loads.get(standing.site, 0.0)
    return standing.staying > 0 and standing.waiting == 0 and load < standing.staying * supply.requests / 2


def _room(standing: Standing, place: PlaceMemory, supply: Supply, promised: int, now: float) -> int:
    """The slew limits of `autoscaling.policy` hold here too: what never gets ready can't run away."""
    if standing.why_no_more or overdue(standing, place, now):
        return promised
    scaling, base = standing.spec.autoscaling, max(standing.staying, 1)
    step = max(base + 1, min(int(base * scaling.max_up_factor), base + scaling.max_up_replicas))
    return max(promised, min(step, supply.most))
