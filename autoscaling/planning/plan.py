"""Bounds for every placement, each with its reason. Pure: clock and past are arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaling.planning.ceilings import ceiling
from autoscaling.planning.floors import floor
from autoscaling.planning.memory import Memory, ModelMemory, PlaceMemory
from autoscaling.planning.standing import Standing, standings
from autoscaling.planning.supply import Where
from autoscaling.planning.view import View, view
from clusters.spec import FleetSpec
from clusters.state import Bounds, FleetState


@dataclass(frozen=True, slots=True)
class Plan:
    """Bounds by site, of every site that is heard: none for a placement means that it scales by itself."""

    bounds: Mapping[str, tuple[Bounds, ...]]
    memory: Memory


def plan(fleet: FleetSpec, seen: FleetState, memory: Memory, now: float) -> Plan:
    """`now` and the readings of `seen` are in monotonic seconds. A model with one placement is left alone."""
    everywhere = {model.name: standings(fleet, seen, model.name, now) for model in fleet.models}
    counts = {(each.site, model): _count(each) for model, places in everywhere.items() for each in places}
    bounds: dict[str, list[Bounds]] = {each.site: [] for places in everywhere.values() for each in places if each.heard}
    remembered: dict[str, ModelMemory] = {}
    for model, places in everywhere.items():
        if len(places) < 2:
            continue
        remembered[model] = _plan_model(fleet, places, memory.get(model, ModelMemory()), counts, now)
        for each in places:
            place = remembered[model].places.get(each.site)
            if each.heard and place is not None and (set_here := _bounds(each, place)) is not None:
                bounds[each.site].append(set_here)
                counts[each.site, model] = max(counts[each.site, model], set_here.min_replicas or 0)
    return Plan({site: tuple(each) for site, each in bounds.items()}, remembered)


def _count(standing: Standing) -> int:
    return max(standing.replicas + standing.starting, standing.spec.autoscaling.min_replicas)


def _plan_model(
    fleet: FleetSpec, places: Sequence[Standing], memory: ModelMemory, counts: Mapping[Where, int], now: float
) -> ModelMemory:
    seen, memory = view(fleet, places, memory, counts, now)
    kept = {
        each.site: _planned(each, memory.places[each.site], seen, now) for each in places if each.site in memory.places
    }
    return replace(memory, places=kept)


def _planned(standing: Standing, place: PlaceMemory, seen: View, now: float) -> PlaceMemory:
    return ceiling(standing, floor(standing, place, seen, now), seen, now)


def _bounds(standing: Standing, place: PlaceMemory) -> Bounds | None:
    """They narrow those of `fleet.yaml`."""
    scaling = standing.spec.autoscaling
    least = min(place.floor, scaling.max_replicas)
    least_set = least > scaling.min_replicas
    most = place.ceiling
    most_set = most is not None and most < scaling.max_replicas
    if not least_set and not most_set:
        return None
    reasons = (place.floor_reason if least_set else "", place.ceiling_reason if most_set else "")
    return Bounds(
        model=standing.spec.model,
        min_replicas=least if least_set else None,
        max_replicas=most if most_set else None,
        reason="; ".join(reason for reason in reasons if reason),
    )
