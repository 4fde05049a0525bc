"""Frozen snapshots of how the fleet is doing. `SiteState` is also the wire format of a site's `/fleet/state`."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    # Unknown fields are ignored: a site may be newer than the ingress that reads it.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Readiness(StrEnum):
    """`ready` means that at least one replica answers."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


class EngineSample(Frozen):
    """What one replica's engine said of itself after its latest step."""

    replica: str
    running: int = Field(ge=0, description="requests in the batch")
    waiting: int = Field(ge=0, description="requests queued in the engine")
    kv_usage: float = Field(ge=0, le=1, description="share of the KV cache in use")
    at: float = Field(description="seconds since the epoch, by the site's clock")


class PlacementState(Frozen):
    """One model at one site. Loads are sums over replicas; None means that none has reported: not 0."""

    model: str
    release: str
    readiness: Readiness
    replicas: int = Field(ge=0, description="replicas that answer")
    target_replicas: int = Field(ge=0)
    capacity: int = Field(ge=0, description="requests that one replica runs at once")
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = Field(None, description="mean over replicas, 0 to 1")
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


class SiteState(Frozen):
    """What a site says of itself at one moment."""

    site: str
    at: float = Field(description="seconds since the epoch, by the site's clock")
    drain_s: float | None = Field(
        None, description="draining: seconds that running streams may still stay; None means it is not"
    )
    placements: tuple[PlacementState, ...] = ()
    releases: tuple[ReleaseState, ...] = ()

    def placement(self, model: str) -> PlacementState | None:
        return next((placement for placement in self.placements if placement.model == model), None)


class DrainOrder(Frozen):
    """What a site's `/fleet/drain` takes."""

    deadline_s: float | None = Field(ge=0, description="seconds that running streams may stay; None ends the draining")


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
