"""What the next plan has to remember. Bounded by the placements of the fleet; all times are monotonic seconds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoscaling.planning.standing import Standing
from autoscaling.state import Coming
from autoscaling.windows import Peaks, Window


@dataclass(frozen=True, slots=True)
class PlaceMemory:
    """Of one placement whose load is, or was lately, known; or of which an earlier planner's bounds were found."""

    since: float
    """When its load was known first; gaps of up to `silent_s` don't count."""
    known_at: float
    """When its load was known last."""
    load: Window = field(default_factory=Window)
    waiting: Window = field(default_factory=Window)
    coming: Coming | None = None
    floor: int = 0
    floor_reason: str = ""
    stays: Peaks = field(default_factory=Peaks)
    """Floors that were needed within `scale_down_delay_s`."""
    ceiling: int | None = None
    ceiling_reason: str = ""
    turned_at: float = 0.0
    """When a ceiling was set or lifted last."""


@dataclass(frozen=True, slots=True)
class ModelMemory:
    places: Mapping[str, PlaceMemory] = field(default_factory=dict)
    """By site."""
    since: float | None = None
    """Its load is known without a gap since then."""
    lulls: Peaks = field(default_factory=Peaks)
    """Loads of the fleet within the longest `scale_down_delay_s`, less than 0: their peak is the lowest load."""
    whole_load: float = 0.0
    """Of the fleet at `whole_at`."""
    whole_at: float = -math.inf
    """When no placement's load was missing, or it was settled that what is heard is all there is."""
    met: frozenset[str] = frozenset()
    """Sites that were heard: bounds that are found there are this planner's own."""


Memory = Mapping[str, ModelMemory]
"""By model. Empty at the start."""


def first_sight(standing: Standing, now: float) -> PlaceMemory:
    """Bounds that an earlier planner set stay in force until this one has watched for long enough."""
    bounds = standing.bounds
    return PlaceMemory(
        since=now,
        known_at=now,
        floor=(bounds.min_replicas or 0) if bounds else 0,
        floor_reason=bounds.reason if bounds and bounds.min_replicas else "",
        ceiling=bounds.max_replicas if bounds else None,
        ceiling_reason=bounds.reason if bounds and not bounds.min_replicas else "",
        turned_at=now,
    )
