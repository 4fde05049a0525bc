"""What was measured, and the figures that follow from it."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PHASES = ("actor start", "imports", "weights", "engine", "warm-up", "route", "first request")
"""Of a start of ours. Their sum is the time to the first token."""
OWN_WORDS = {
    "loading": re.compile(r"Loading weights took ([\d.]+) seconds"),
    "profiling and compiling": re.compile(r"init engine \(.*\) took ([\d.]+) s"),
}
"""What vLLM itself says of the phase `engine`; the rest of it are its processes and their imports."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start, in seconds. `phases` are empty where nobody tells them."""

    total_s: float
    """From the wish for an engine to its first token."""
    first_s: float
    """Time to the first token of the first request."""
    steady_s: float
    """The same of later ones: their median."""
    phases: Mapping[str, float]
    engine: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """By contender, run by run."""

    starts: Mapping[str, Sequence[Start]]

    def total_s(self, contender: str) -> float | None:
        return median(start.total_s for start in self.starts.get(contender, ()))

    def first_by_steady(self, contender: str) -> float | None:
        return median(start.first_s / start.steady_s for start in self.starts.get(contender, ()))

    def phase_s(self, contender: str, phase: str) -> float | None:
        return median(start.phases[phase] for start in self.starts[contender] if phase in start.phases)

    def engine_s(self, contender: str, part: str) -> float | None:
        return median(start.engine[part] for start in self.starts[contender] if part in start.engine)


def median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def own_words(logs: Iterable[Path]) -> dict[str, float]:
    """The latest that vLLM says in these logs, the newest of which comes last."""
    text = "\n".join(log.read_text(errors="replace") for log in logs)
    said = {part: pattern.findall(text) for part, pattern in OWN_WORDS.items()}
    return {part: float(found[-1]) for part, found in said.items() if found}
