"""What is compared."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import mean
from typing import Any, Self

from autoscaling.simulate.outcome import percentile
from bench.simulator.replay import Served


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one replay."""

    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    tpot_mean_s: float
    tokens_per_s: float

    @classmethod
    def of(cls, served: Sequence[Served]) -> Self:
        ttfts = [each.ttft_s for each in served]
        seconds = max(each.last for each in served) - min(each.sent for each in served)
        return cls(
            ttft_mean_s=mean(ttfts),
            ttft_p50_s=percentile(ttfts, 0.5),
            ttft_p95_s=percentile(ttfts, 0.95),
            tpot_mean_s=mean(each.tpot_s for each in served if each.tpot_s is not None),
            tokens_per_s=sum(each.output_tokens for each in served) / seconds,
        )

    @classmethod
    def average(cls, each: Sequence[Self]) -> Self:
        return cls(*(mean(getattr(one, field.name) for one in each) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class Compared:
    """One load: the engine's figures beside the simulator's, of each repetition."""

    load: str
    shared: bool
    requests: int
    inside_s: float
    """Mean TTFT by the engine's own clock,"""
    request_s: float
    """and what the model has beside that."""
    others: float
    """Of two cores, what somebody else had meanwhile."""
    real: tuple[Figures, ...]
    simulated: tuple[Figures, ...]

    def pair(self, figure: str) -> tuple[float, float]:
        """Means over the repetitions."""
        return getattr(Figures.average(self.real), figure), getattr(Figures.average(self.simulated), figure)

    def error(self, figure: str) -> float:
        """The simulator's, as a share of what was measured."""
        real, simulated = self.pair(figure)
        return simulated / real - 1

    def inside(self) -> tuple[float, float]:
        """Mean TTFT without HTTP and the client: the engine's and the simulator's."""
        return self.inside_s, self.pair("ttft_mean_s")[1] - self.request_s

    def noise(self, figure: str) -> float:
        """Between the engine's own repetitions: from the least to the most, as a share of their mean."""
        values = [getattr(one, figure) for one in self.real]
        return float((max(values) - min(values)) / mean(values))

    def report(self) -> dict[str, Any]:
        return asdict(self)
