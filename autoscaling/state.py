"""What the next decision has to remember. Bounded, and plain JSON by `plain`."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from autoscaling.forecast import NO_FLOOR, Floor, History
from autoscaling.windows import Peaks, Window


@dataclass(frozen=True, slots=True)
class Coming:
    """Fewer replicas are ready than are wanted: since when, and how many they were then."""

    since: float
    ready: int


@dataclass(frozen=True, slots=True)
class State:
    """All times are seconds since the epoch."""

    at: float | None = None
    """Of the latest signal that had data."""
    watched_since: float = 0.0
    """Signals came without a gap since then."""
    busy_at: float = 0.0
    """When there was a request last."""
    stepped_down_at: float | None = None
    panicked_at: float | None = None
    """When the load was last a burst; None once that is `window_s` ago."""
    load: Window = field(default_factory=Window)
    """Requests."""
    kv_used: Window = field(default_factory=Window)
    """KV caches in use, in caches of one replica."""
    busy: Window = field(default_factory=Window)
    """GPUs busy, in replicas."""
    needs: Peaks = field(default_factory=Peaks)
    """Replicas that had to stay, over `scale_down_delay_s`."""
    coming: Coming | None = None
    history: History = field(default_factory=History)
    floor: Floor = NO_FLOOR


def plain(state: State) -> dict[str, Any]:
    """As JSON knows it."""
    return msgspec.to_builtins(state)  # type: ignore[no-any-return]


def from_plain(values: Any) -> State:
    """Raises msgspec.ValidationError when these are not the values of a State."""
    return msgspec.convert(values, State)
