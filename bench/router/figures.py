"""What was measured of a contender, and the figures that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

FULL = 0.92
"""Share of its core above which the contender, not its load, set the pace."""


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in one interval. CPU is in seconds, user and system."""

    wall_s: float
    cpu_s: float
    rest_cpu_s: float
    """Of processes that belong to the contender, but not to the way of a request."""
    answers: int
    failures: int
    events: int

    @property
    def busy(self) -> float:
        """Share of the contender's core."""
        return self.cpu_s / self.wall_s

    @property
    def generator_bound(self) -> bool:
        return self.busy < FULL

    @property
    def cpu_ms_per_request(self) -> float:
        return self.cpu_s * 1e3 / self.answers if self.answers else float("inf")

    @property
    def cpu_s_per_100k_events(self) -> float:
        return self.cpu_s * 1e5 / self.events if self.events else float("inf")

    @property
    def requests_per_s(self) -> float:
        """Of one full core: as measured, or by the CPU of each where the load was the limit."""
        return 1e3 / self.cpu_ms_per_request if self.generator_bound else self.answers / self.wall_s


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds at a fixed rate: of the contender, and of the engine, driven directly in between."""

    p50: float
    p99: float
    direct_p50: float
    direct_p99: float
    unanswered: int

    @classmethod
    def of(cls, measured_s: Sequence[float], direct_s: Sequence[float], unanswered: int) -> Self:
        return cls(
            p50=percentile(measured_s, 0.5) * 1e3,
            p99=percentile(measured_s, 0.99) * 1e3,
            direct_p50=percentile(direct_s, 0.5) * 1e3,
            direct_p99=percentile(direct_s, 0.99) * 1e3,
            unanswered=unanswered,
        )

    @property
    def added_p50(self) -> float:
        return self.p50 - self.direct_p50

    @property
    def added_p99(self) -> float:
        return self.p99 - self.direct_p99


@dataclass(frozen=True, slots=True)
class OpenStreams:
    window: Window
    wanted: int
    opened: int
    """Streams that flowed when the window began."""
    added_bytes: int
    """Of resident memory."""

    @property
    def kb_per_stream(self) -> float | None:
        """1,000 bytes each. None when not all were open."""
        return self.added_bytes / self.opened / 1e3 if self.opened == self.wanted else None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one contender. Latencies are None for the engine driven directly: it is their baseline."""

    name: str
    latency: Latency | None
    first_byte: Latency | None
    open_streams: OpenStreams
    short: Window
    conversations: Window
    flat_out: Window


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * len(values))] if values else float("inf")
