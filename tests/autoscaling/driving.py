"""Drives the policy through made-up time: a load, replicas that take their time to start, one decision per step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from autoscaling.policy import Decision, decide
from autoscaling.signals import Signal
from autoscaling.state import State
from clusters.scaling import AutoscalingSpec

NOON = 1_800_000_000.0
"""Seconds since the epoch, somewhere in 2027."""


@dataclass
class Site:
    """Replicas that are ready `start_up_s` after they were asked for, or never."""

    limits: AutoscalingSpec
    target: int = 1
    start_up_s: float = 0
    now: float = NOON
    state: State = field(default_factory=State)
    born: list[float] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.born = [self.now - self.start_up_s] * self.target

    @property
    def ready(self) -> int:
        return sum(self.now - born >= self.start_up_s for born in self.born)

    @property
    def targets(self) -> list[int]:
        return [decision.target for decision in self.decisions]

    @property
    def changes(self) -> int:
        return sum(a != b for a, b in pairwise(self.targets))

    def step(self, load: float | None, seconds: float = 1, held: float = 0) -> Decision:
        self.now += seconds
        return self.see(signal(load, self.now, self.ready, held))

    def see(self, seen: Signal) -> Decision:
        decision = decide(seen, self.state, self.limits, self.target, self.now)
        self.state, self.target = decision.state, decision.target
        # Ray stops replicas that still start before others.
        self.born = (self.born + [self.now] * max(0, self.target - len(self.born)))[: self.target]
        self.decisions.append(decision)
        return decision

    def run(self, loads: Iterable[float | None], seconds: float = 1) -> "Site":
        for load in loads:
            self.step(load, seconds)
        return self

    def settle(self, load: float, seconds: int = 900) -> int:
        self.run([load] * seconds)
        return self.target


def signal(load: float | None, at: float, ready: int, held: float = 0) -> Signal:
    """`load` requests run in `ready` engines; without engines they are held."""
    if ready == 0:
        return Signal(at, held=None if load is None else load + held)
    return Signal(at, running=load, waiting=None if load is None else 0.0, held=held, ready=ready, reporting=ready)


def spec(**settings: object) -> AutoscalingSpec:
    return AutoscalingSpec.model_validate({"max_replicas": 8, "target_queue_depth": 4, "predictive": False, **settings})


Load = Callable[[float], float]
