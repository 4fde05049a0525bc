"""What is known of one model over the fleet, and what follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaling.planning.demand import Demand, observe
from autoscaling.planning.memory import ModelMemory
from autoscaling.planning.shares import Shares, shares, with_spare
from autoscaling.planning.standing import Standing
from autoscaling.planning.supply import Supply, Where, supply
from clusters.routing import PolicySpec, Preset
from clusters.spec import FleetSpec

FOLLOWS_PRICE = frozenset((Preset.BALANCED, Preset.CHEAPEST, Preset.SPILL))
"""With these presets of the router, requests move to a cheaper site once it has replicas for them."""


@dataclass(frozen=True, slots=True)
class View:
    """Of one model."""

    standings: Sequence[Standing]
    supplies: Mapping[str, Supply]
    demand: Demand
    least: Shares
    """What the load needs."""
    stay: Shares
    """What it needs with `scale_down_margin` to spare: fewer would be too tight to let others go."""
    usd_per_late_second: float
    movable: bool
    """Whether requests go where replicas are cheap."""


def view(
    fleet: FleetSpec, places: Sequence[Standing], memory: ModelMemory, counts: Mapping[Where, int], now: float
) -> tuple[View, ModelMemory]:
    """And the memory with what was seen added. `counts` are replicas of all placements."""
    demand, memory = observe(places, memory, fleet.planner.silent_s, now)
    supplies = {each.site: supply(fleet, each.spec, counts) for each in places}
    usable = [each for each in places if each.serves and each.site in memory.places]
    tight = {each.site: with_spare(each, supplies[each.site]) for each in usable}
    policy = _policy(fleet, places[0].spec.model)
    late = policy.usd_per_late_second
    seen = View(
        places,
        supplies,
        demand,
        least=shares(usable, memory.places, supplies, demand, late, now),
        stay=shares(usable, memory.places, tight, demand, late, now),
        usd_per_late_second=late,
        movable=policy.preset in FOLLOWS_PRICE,
    )
    return seen, memory


def _policy(fleet: FleetSpec, model: str) -> PolicySpec:
    return fleet.routing.named_policy(fleet.model(model).policy or fleet.routing.policy) or PolicySpec()
