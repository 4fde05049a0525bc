"""How many requests a model has over the fleet, and what is remembered of that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaling.needs import slot_length
from autoscaling.planning.memory import ModelMemory, PlaceMemory, first_sight
from autoscaling.planning.standing import Standing
from autoscaling.state import Coming


@dataclass(frozen=True, slots=True)
class Demand:
    """All are means over `window_s`, in requests."""

    load: float
    waiting: float
    steady: float
    """It was never less within `scale_down_delay_s`; 0 until it was watched for so long."""
    loads: Mapping[str, float]
    """By site, where it is known."""
    lost: tuple[str, ...]
    """Sites whose load was known a while ago, and is not now."""


def observe(
    standings: Sequence[Standing], memory: ModelMemory, silent_s: float, now: float
) -> tuple[Demand, ModelMemory]:
    """A load does not vanish with the site that tells it: for `silent_s` the fleet's is at least what it was, and no
    longer, though another site may fall silent meanwhile."""
    places = dict(_remembered(standings, memory, silent_s, now))
    loads = {each.site: _mean(each, places[each.site], now) for each in standings if each.load is not None}
    lost = tuple(site for site in places if site not in loads)
    load, whole_load, whole_at = sum(loads.values()), memory.whole_load, memory.whole_at
    if lost and now - whole_at <= silent_s:
        load = max(load, whole_load)
    else:
        whole_load, whole_at = load, now
    delay_s = max(each.spec.autoscaling.scale_down_delay_s for each in standings)
    since = None if not places else now if memory.since is None else memory.since
    lulls = memory.lulls.add(-int(load), now, delay_s) if places else memory.lulls
    watched = since is not None and now - since >= delay_s
    waiting = sum(_mean_waiting(each, places[each.site], now) for each in standings if each.site in loads)
    demand = Demand(load, min(waiting, load), float(-lulls.highest) if watched else 0.0, loads, lost)
    met = memory.met.union(each.site for each in standings if each.heard)
    return demand, ModelMemory(places, since, lulls, whole_load, whole_at, met)


def _remembered(
    standings: Sequence[Standing], memory: ModelMemory, silent_s: float, now: float
) -> list[tuple[str, PlaceMemory]]:
    """A placement of which nothing was known for `silent_s` is forgotten."""
    kept = []
    for standing in standings:
        place = memory.places.get(standing.site)
        if standing.load is not None:
            kept.append((standing.site, _seen(standing, place or first_sight(standing, now), now)))
        elif place is not None and now - place.known_at <= silent_s:
            kept.append((standing.site, place))
        elif standing.bounds is not None and standing.site not in memory.met:
            # An order without them would lift at once what the earlier planner had reasons for.
            kept.append((standing.site, first_sight(standing, now)))
    return kept


def _seen(standing: Standing, place: PlaceMemory, now: float) -> PlaceMemory:
    scaling = standing.spec.autoscaling
    slot_s = slot_length(scaling)
    return replace(
        place,
        since=place.since if place.load.slots else now,
        known_at=now,
        load=place.load.add(standing.load or 0.0, now, scaling.window_s, slot_s),
        waiting=place.waiting.add(standing.waiting, now, scaling.window_s, slot_s),
        coming=_coming(standing, place, now),
    )


def _coming(standing: Standing, place: PlaceMemory, now: float) -> Coming | None:
    """Waiting starts again whenever one more is ready, or one that was ready is lost."""
    ready = standing.staying
    if standing.starting == 0 and place.floor <= ready:
        return None
    return place.coming if place.coming is not None and place.coming.ready == ready else Coming(now, ready)


def _mean(standing: Standing, place: PlaceMemory, now: float) -> float:
    scaling = standing.spec.autoscaling
    return place.load.mean(now, scaling.window_s, slot_length(scaling)) or 0.0


def _mean_waiting(standing: Standing, place: PlaceMemory, now: float) -> float:
    scaling = standing.spec.autoscaling
    return place.waiting.mean(now, scaling.window_s, slot_length(scaling)) or 0.0
