"""What a simulation is given from outside: how requests are routed, and how placements are scaled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from autoscaling.simulate.traces import Request
from clusters.state import NodeNotice, Observation

Place = tuple[str, str]
"""A site and a model."""


class Awaited(Protocol):
    """A site at which more replicas may come."""

    @property
    def site(self) -> str: ...

    @property
    def waking(self) -> bool:
        """There is none yet."""


class Chosen(Protocol):
    """The router's answer."""

    @property
    def target(self) -> str | None:
        """A site, if there is one that takes the request."""

    @property
    def full(self) -> bool:
        """There is none now, but waiting may help."""

    @property
    def awaited(self) -> Awaited | None:
        """What a request that is held should wait for."""


Choice = TypeVar("Choice", bound=Chosen)
Waiter = TypeVar("Waiter")


class Ingress(Protocol[Choice]):
    """The router with its books. It is told of everything that the real one sees, when it would see it."""

    def observe(self, observation: Observation) -> None:
        """A site was read, or did not answer."""

    def choose(self, request: Request, failed: Mapping[str, str], now: float) -> Choice:
        """`failed` are the sites that this request has tried, with what went wrong."""

    def sent(self, choice: Choice, now: float) -> None:
        """An attempt begins."""

    def released(self, choice: Choice) -> None:
        """It is over, in whatever way. Once for each `sent`."""

    def began(self, choice: Choice, seconds: float, now: float) -> None:
        """The first token came after so many seconds."""

    def ended(self, choice: Choice, output_tokens: int, seconds_after_first: float, now: float) -> None:
        """The whole answer came from one site."""

    def failed(self, choice: Choice, reason: str, begun: bool, now: float) -> None:
        """The attempt was lost, before or after its first token."""


class Holding(Protocol[Waiter]):
    """Where requests wait while every site is full."""

    size: int

    def join(self, tenant: str, waiter: Waiter) -> bool: ...

    def leave(self, tenant: str, waiter: Waiter) -> None: ...

    def in_turn(self, limit: int) -> Iterator[Waiter]: ...


@dataclass(frozen=True, slots=True)
class ReplicaReading:
    """What one replica's engine says of itself."""

    name: str
    running: int
    waiting: int
    kv_usage: float
    """Share of the KV cache, 0 to 1."""
    busy: float
    """Share of the time since the last reading in which it computed."""


@dataclass(frozen=True, slots=True)
class PlacementReading:
    """Of one placement, for one decision."""

    place: Place
    replicas: tuple[ReplicaReading, ...]
    """Those that stay."""
    target: int
    starting: int
    refused: int
    """Replicas that are wanted, but for which there is no node now."""
    displaced: int
    """Requests in replicas that the market is about to take away."""
    held: int
    """Requests at the ingress that wait for it to grow."""
    answers: bool = True
    """Its site does; what is read of one that does not is known there only."""
    notices: tuple[NodeNotice, ...] = ()
    """That its site tells of."""


@dataclass(frozen=True, slots=True)
class Target:
    replicas: int
    reason: str


class Controller(Protocol):
    """Decides how many replicas every placement should have."""

    def targets(self, readings: Sequence[PlacementReading], now: float) -> Mapping[Place, Target]:
        """Placements that are not named stay as they are."""
