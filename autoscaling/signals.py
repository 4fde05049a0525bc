"""What the engines of one placement said lately, reduced to one value per decision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One reading of one replica's queue depth (requests running and waiting), at `at` seconds since the epoch."""

    at: float
    depth: float


@dataclass(frozen=True)
class Signal:
    """Queue depth of a whole placement. `depth` None means that no replica reported within the window: not zero."""

    depth: float | None
    reporting: int


def queue_depth(replicas: Iterable[Sequence[Sample]], now: float, window_s: float) -> Signal:
    """Sum over replicas of each one's mean depth within the last `window_s` seconds."""
    means = [
        sum(sample.depth for sample in recent) / len(recent)
        for samples in replicas
        if (recent := [sample for sample in samples if now - window_s <= sample.at])
    ]
    return Signal(sum(means) if means else None, len(means))
