"""One request on its way through a simulation."""

from dataclasses import dataclass, field
from typing import Generic

from autoscaling.simulate.engine import Sequence
from autoscaling.simulate.outcome import End, Served
from autoscaling.simulate.placement import Replica
from autoscaling.simulate.ports import Choice
from autoscaling.simulate.traces import Request


@dataclass(eq=False, slots=True)
class Journey(Generic[Choice]):
    """What it has had so far. Its times are seconds of the simulation."""

    number: int
    """In the trace."""
    request: Request
    left: int
    """Tokens that the client still lacks."""
    choice: Choice | None = None
    """Of the attempt under way."""
    site: str = ""
    sent_at: float = 0.0
    first_at: float | None = None
    attempts: int = 0
    continuations: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    cached: int = 0
    held_since: float | None = None
    hold_until: float = 0.0
    awaited: str | None = None
    """The site that it is held for."""
    held_s: float = 0.0
    cut_at: float = 0.0
    replica: Replica | None = None

    @property
    def begun(self) -> bool:
        return self.first_at is not None

    def sequence(self, prefix_caching: bool) -> Sequence:
        """What an engine gets: the prompt with what the client has of the answer, and what is left."""
        request = self.request
        had = request.output_tokens - self.left
        return Sequence(request.prompt_tokens + had, self.left, request.blocks if prefix_caching else ())

    def served(self, end: End, now: float) -> Served:
        request = self.request
        had = request.output_tokens - self.left
        first_at = self.first_at
        return Served(
            at=request.at,
            site=self.site,
            end=end,
            prompt_tokens=request.prompt_tokens,
            output_tokens=had,
            cached_tokens=self.cached,
            ttft_s=None if first_at is None else first_at - request.at,
            tpot_s=None if first_at is None or had < 2 else (now - first_at) / (had - 1),
            attempts=self.attempts,
            continuations=self.continuations,
            held_s=self.held_s,
        )
