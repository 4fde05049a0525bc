"""Fewest replicas: where a site should grow before its own queue asks for it."""

import math
from dataclasses import dataclass, replace

from autoscaling.needs import ROUNDING
from autoscaling.planning.memory import PlaceMemory
from autoscaling.planning.shares import Shares
from autoscaling.planning.standing import Standing
from autoscaling.planning.view import View
from autoscaling.windows import Peaks


@dataclass(frozen=True, slots=True)
class Floor:
    replicas: int
    reason: str


NONE = Floor(0, "")


def floor(standing: Standing, place: PlaceMemory, view: View, now: float) -> PlaceMemory:
    """Up at once, down only when less was enough for `scale_down_delay_s`. Without data it stays."""
    if standing.heard and not standing.serves:
        return replace(place, floor=0, floor_reason="", stays=Peaks())
    if standing.load is None:
        return place
    delay_s, before = standing.spec.autoscaling.scale_down_delay_s, place.floor
    needed = _needed(standing, view, view.least)
    stays = place.stays.add(max(needed.replicas, _needed(standing, view, view.stay).replicas), now, delay_s)
    held = before if now - place.since < delay_s else min(before, stays.highest)
    replicas, reason = max(needed.replicas, held), place.floor_reason
    if replicas > before:
        reason = needed.reason
    elif replicas < before:
        reason = f"{replicas} were needed within {delay_s:g} s" if replicas else ""
    return replace(place, floor=replicas, floor_reason=reason, stays=stays)


def _needed(standing: Standing, view: View, shares: Shares) -> Floor:
    return max(_growth(standing, view, shares), _takeover(standing, view, shares), key=lambda each: each.replicas)


def _growth(standing: Standing, view: View, shares: Shares) -> Floor:
    """More than the ready replicas of all sites are for: part of that is to come here."""
    extra = shares.extra.get(standing.site, 0)
    if not extra:
        return NONE
    replicas, requests = standing.staying + extra, view.supplies[standing.site].requests
    needed = math.ceil(view.demand.load / requests - ROUNDING)
    words = f"{needed} replica{'' if needed == 1 else 's'} needed: {view.demand.load:.0f} requests at {requests:g}"
    return Floor(replicas, f"{words}{_lost(view)}; {standing.site} first: {_why_here(standing, view, replicas)}")


def _takeover(standing: Standing, view: View, shares: Shares) -> Floor:
    """What a dearer site carries all the time: one replica more than the own load needs, so that requests can follow.
    When none do, it remains at that one."""
    supply, share = view.supplies[standing.site], shares.steady.get(standing.site, 0)
    own = math.ceil(view.demand.loads.get(standing.site, 0.0) / supply.requests - ROUNDING)
    if not view.movable or standing.why_no_more or share <= own:
        return NONE
    price = supply.price(own + 1)
    dearer = [
        (view.supplies[other.site].price(other.staying), other.site)
        for other in view.standings
        if other.serves and other.staying > shares.steady.get(other.site, 0)
    ]
    dearest, site = max(dearer, default=(0.0, ""))
    if dearest <= price:
        return NONE
    return Floor(
        own + 1,
        f"{view.demand.steady:.0f} requests at all times: {standing.site} carries them for {_usd(price)}, "
        f"{site} for {_usd(dearest)}",
    )


def _why_here(standing: Standing, view: View, number: int) -> str:
    own = view.supplies[standing.site]
    price = own.price(number)
    for other in view.standings:
        supply, have = view.supplies[other.site], other.staying + view.least.extra.get(other.site, 0)
        cheaper = not other.why_no_more and have < supply.most and supply.price(have + 1) < price
        if cheaper and (sooner_s := supply.start_up_s - own.start_up_s) > 0:
            return f"ready {sooner_s:g} s before {other.site}, worth {_usd(price - supply.price(have + 1))} more"
    return "already paid for" if price == 0 else f"{_usd(price)}, the least of what has room"


def _lost(view: View) -> str:
    parts = [f"{site} is not heard from" for site in view.demand.lost]
    parts += [
        f"the provider takes {each.replicas - each.staying} at {each.site}"
        for each in view.standings
        if each.replicas > each.staying
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _usd(per_hour: float) -> str:
    return f"{per_hour:.2f} USD an hour"
