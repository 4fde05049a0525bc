"""How the ingress watches, chooses and retries: `routing:` in `fleet.yaml`."""

from enum import StrEnum

from pydantic import Field

from clusters.fields import Name, PolicyName, Spec


class Preset(StrEnum):
    """Settings of the one chain that chooses a site."""

    BALANCED = "balanced"
    """Dollars: tokens, egress and lateness, less what a cached prefix saves."""
    CHEAPEST = "cheapest"
    """The same, with lateness at a tenth of its price."""
    FASTEST = "fastest"
    """The earliest first token, whatever it costs."""
    LEAST_LOADED = "least_loaded"
    NEAREST = "nearest"
    """The shortest round trip."""
    WEIGHTED = "weighted"
    """Shares by site, at random."""
    PRIMARY_STANDBY = "primary_standby"
    """The first of `order` that may serve."""
    SPILL = "spill"
    """Reserved capacity up to `spill_load`, then spot and on demand, then hosted targets."""


NEED_SETTINGS = frozenset((Preset.WEIGHTED, Preset.PRIMARY_STANDBY))
"""They say nothing by themselves: a policy of the fleet's own has the weights or the order."""


class PolicySpec(Spec):
    """A preset with settings."""

    preset: Preset = Preset.BALANCED
    ttft_target_s: float = Field(1.0, gt=0, description="seconds to the first token that cost nothing")
    usd_per_late_second: float = Field(0.001, ge=0, description="USD for each second beyond that, per request")
    weights: dict[Name, float] = Field(default_factory=dict, description="weighted: share by site; unnamed sites get 0")
    order: tuple[Name, ...] = Field((), description="primary_standby: sites, the preferred one first")
    spill_load: float = Field(1.0, gt=0, description="spill: requests per slot that make reserved capacity full")


class HealthSpec(Spec):
    """When requests themselves tell that a placement is ill, and how it comes back."""

    consecutive_errors: int = Field(5, ge=1, description="failures in a row that eject a placement")
    success_rate: float = Field(0.5, ge=0, le=1, description="ejects below this share of the last window")
    window_s: float = Field(10, gt=0)
    min_samples: int = Field(20, ge=1, description="requests in the window before the share counts")
    ejection_s: float = Field(5, gt=0, description="first ejection; doubles each time")
    max_ejection_s: float = Field(120, gt=0)
    max_ejected_share: float = Field(0.5, ge=0, le=1, description="of a model's placements; more are never ejected")
    ramp_s: float = Field(10, ge=0, description="seconds over which a readmitted placement regains its full share")


class HedgeSpec(Spec):
    """A second attempt elsewhere while the first one is silent. Off unless `enabled`."""

    enabled: bool = False
    factor: float = Field(2.0, ge=1, description="of the predicted 95th percentile of the time to the first token")
    min_delay_s: float = Field(0.1, gt=0)
    max_share: float = Field(0.02, ge=0, le=1, description="hedges per request, over time")
    max_usd: float = Field(0.01, ge=0, description="most that one second attempt may cost")


class HoldSpec(Spec):
    """Requests wait here when every allowed site is full."""

    max_load: float = Field(4.0, gt=0, description="requests per slot at which a site takes no more")
    max_waiting: int = Field(1024, ge=0)
    max_waiting_per_tenant: int = Field(256, ge=0)
    deadline_s: float = Field(30, ge=0, description="then the answer is 429")
    wake_s: float = Field(300, ge=0, description="the same where no replica is there yet and one is on its way")


class ContinuationSpec(Spec):
    """Finishing a cut stream on another site."""

    enabled: bool = True
    stall_s: float = Field(10, gt=0, description="seconds without a byte after which a running stream counts as cut")
    max_times: int = Field(3, ge=0, description="per request")


class RoutingSpec(Spec):
    """How the ingress watches, chooses and retries."""

    poll_interval_s: float = Field(1, gt=0, le=60, description="seconds between two readings of a site's state")
    state_max_age_s: float = Field(5, gt=0, description="an older state counts only while answers come from there")
    max_attempts: int = Field(3, ge=1, le=10, description="sites tried for one request before its first byte")
    connect_timeout_s: float = Field(2, gt=0)
    first_byte_timeout_s: float = Field(
        120, gt=0, description="seconds an attempt may stay silent before the next site"
    )
    idle_timeout_s: float = Field(120, gt=0, description="seconds between two chunks of an answer that can't continue")
    retry_budget: float = Field(0.2, ge=0, le=1, description="retries per request over the fleet, beyond 10 at once")
    policy: PolicyName = Field("balanced", description="a preset, or one of `policies`")
    policies: dict[PolicyName, PolicySpec] = Field(default_factory=dict)
    prefix_blocks: int = Field(2**16, ge=0, le=2**24, description="prompt blocks remembered, about 200 bytes each")
    explained_requests: int = Field(256, ge=0, le=100_000, description="latest choices kept for `/fleet/route/{id}`")
    health: HealthSpec = HealthSpec()
    hedge: HedgeSpec = HedgeSpec()
    hold: HoldSpec = HoldSpec()
    continuation: ContinuationSpec = ContinuationSpec()

    def named_policy(self, name: str) -> PolicySpec | None:
        """A policy of the fleet's own, else the preset of that name."""
        if name in self.policies:
            return self.policies[name]
        return PolicySpec(preset=Preset(name)) if name in list(Preset) and name not in NEED_SETTINGS else None
