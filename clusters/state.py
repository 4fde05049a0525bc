"""Frozen snapshots of how the fleet is doing. `SiteState` is also the wire format of a site's `/fleet/state`."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    # Unknown fields are ignored: a site may be newer than the ingress that reads it.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Readiness(StrEnum):
    """`ready` means that at least one replica answers, `asleep` that none is wanted until a request comes."""

    ASLEEP = "asleep"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


class EngineSample(Frozen):
    """What one replica's engine said of itself after its latest step."""

    replica: str
    running: int = Field(ge=0, description="requests in the batch")
    waiting: int = Field(ge=0, description="requests queued in the engine")
    kv_usage: float = Field(ge=0, le=1, description="share of the KV cache in use")


class Bounds(Frozen):
    """What the planner lets a placement have. It narrows the bounds of `fleet.yaml`; None leaves them as they are."""

    model: str
    min_replicas: int | None = Field(None, ge=0)
    max_replicas: int | None = Field(None, ge=0)
    reason: str = ""


class PlacementState(Frozen):
    """One model at one site. Loads are sums over replicas; None means that none has reported: not 0."""

    model: str
    release: str
    readiness: Readiness
    replicas: int = Field(ge=0, description="replicas that answer")
    target_replicas: int = Field(ge=0)
    leaving: int = Field(0, ge=0, description="of `replicas`, those on nodes that drain")
    held: float | None = Field(None, description="requests that ingresses hold for it; None: no ingress tells")
    reason: str = Field("", description="of the autoscaler's latest decision")
    bounds: Bounds | None = Field(None, description="the planner's, as long as they count")
    capacity: int = Field(ge=0, description="requests that one replica runs at once")
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = Field(None, description="mean over replicas, 0 to 1")
    since: float | None = Field(None, description="when it came to this readiness, seconds since the epoch")
    message: str = Field("", description="why it is not ready, for people")


class ReleasePhase(StrEnum):
    """Of a release at a site's store."""

    ABSENT = "absent"
    COPYING = "copying"
    STORED = "stored"
    FAILED = "failed"
    """Copying it failed, and will be tried again."""


class ReleaseState(Frozen):
    """One release that a site should hold, for a placement that it has or is about to have."""

    model: str
    release: str
    phase: ReleasePhase
    share: float = Field(0, ge=0, le=1, description="of its bytes, as far as the store has them; while copying")
    nodes: int = Field(0, ge=0, description="nodes that have it on their disk")
    message: str = Field("", description="what it waits for, or what went wrong")


class NodeNotice(Frozen):
    """The provider takes a node back."""

    node: str = Field(description="Ray's id of it")
    pool: str
    ends_at: float = Field(description="seconds since the epoch, by the site's clock")
    message: str = Field("", description="what the provider said, for people")


class SiteState(Frozen):
    """What a site says of itself at one moment."""

    site: str
    at: float = Field(description="seconds since the epoch, by the site's clock")
    drain_s: float | None = Field(
        None, description="draining: seconds that running streams may still stay; None means it is not"
    )
    placements: tuple[PlacementState, ...] = ()
    releases: tuple[ReleaseState, ...] = ()
    notices: tuple[NodeNotice, ...] = ()

    def placement(self, model: str) -> PlacementState | None:
        return next((placement for placement in self.placements if placement.model == model), None)

    def has_release(self, model: str, release: str) -> bool:
        """Whether its store does. A site that says nothing of it is believed to: it may just have started to look."""
        phases = [each.phase for each in self.releases if (each.model, each.release) == (model, release)]
        return ReleasePhase.STORED in phases or not phases


class DrainOrder(Frozen):
    """What a site's `/fleet/drain` takes."""

    deadline_s: float | None = Field(ge=0, description="seconds that running streams may stay; None ends the draining")


class Held(Frozen):
    """What an ingress replica tells a site with each look at its state: requests that it holds for it, by model."""

    ingress: str = Field(min_length=1, max_length=64, description="which replica")
    held: Mapping[str, int] = Field(default_factory=dict, max_length=1000)
    lifetime_s: float = Field(5.0, gt=0, le=600, description="of this word: it looks far more often")


class BoundsOrder(Frozen):
    """What a site's `/fleet/bounds` takes from the planner. Of two planners the one that started later counts."""

    started_at: float = Field(description="of the planner, seconds since the epoch")
    lifetime_s: float = Field(gt=0, le=600, description="then the site scales by itself again")
    bounds: tuple[Bounds, ...] = Field(max_length=1000)


class Observation(Frozen):
    """The ingress's latest reading of one site: the state, or why there is none."""

    site: str
    state: SiteState | None = None
    read_at: float | None = Field(None, description="of `state`, monotonic seconds, by the ingress's clock")
    round_trip_s: float | None = None
    error: str = ""


class FleetState(Frozen):
    """One immutable picture of every site, for one choice."""

    observations: Mapping[str, Observation] = {}
