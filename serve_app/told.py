"""What ingresses and the planner have told a site, as long as it counts."""

from autoscaling.ray_notes import Order
from clusters.state import Bounds, BoundsOrder, Held

MAX_INGRESSES = 256


class Told:
    """All times are monotonic seconds: a clock that is set must not keep what nobody says any more."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, Held]] = {}
        self._bounds: BoundsOrder | None = None
        self._bounds_until = 0.0

    def hear(self, held: Held, now: float) -> bool:
        """Of one ingress replica. Whether it now tells of requests for a model of which it told none before."""
        before = self._held.get(held.ingress)
        fresh = {name: told for name, told in self._held.items() if _counts(told, now)}
        self._held = fresh if len(fresh) < MAX_INGRESSES or held.ingress in fresh else {}
        self._held[held.ingress] = (now, held)
        known = before[1].held if before is not None else {}
        return any(count and not known.get(model) for model, count in held.held.items())

    def bind(self, order: BoundsOrder, now: float) -> bool:
        """Of the planner. False from one that started earlier than the one whose bounds are in force."""
        if self._bounds is not None and now < self._bounds_until and order.started_at < self._bounds.started_at:
            return False
        self._bounds, self._bounds_until = order, now + order.lifetime_s
        return True

    def held(self, model: str, now: float) -> float | None:
        """Requests; None when no ingress tells."""
        told = [told[1].held for told in self._held.values() if _counts(told, now)]
        return float(sum(held.get(model, 0) for held in told)) if told else None

    def bounds(self, model: str, now: float) -> Bounds | None:
        if self._bounds is None or now >= self._bounds_until:
            return None
        return next((bounds for bounds in self._bounds.bounds if bounds.model == model), None)

    def order(self, model: str, now: float) -> Order | None:
        """For the autoscaler; None when nobody told anything."""
        held, bounds = self.held(model, now), self.bounds(model, now)
        if bounds is not None:
            return Order(now, held, bounds.min_replicas, bounds.max_replicas)
        return None if held is None else Order(now, held)


def _counts(told: tuple[float, Held], now: float) -> bool:
    """An ingress that is silent for longer than it said holds nothing that is known of."""
    at, held = told
    return now - at <= held.lifetime_s
