"""The shape of `fleet.yaml`: every field with its unit and default. Rules that span fields live in
`fleet_file/rules.py`; `check.py` applies both."""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from clusters.fields import EnvName, HttpUrl, Name, PolicyName, ReleaseId, Spec
from clusters.scaling import AutoscalingSpec
from clusters.storage import StoreSpec, WeightsSpec


class Provider(StrEnum):
    AWS = "aws"
    GCP = "gcp"
    ONPREM = "onprem"


class Market(StrEnum):
    RESERVED = "reserved"
    ON_DEMAND = "on_demand"
    SPOT = "spot"


class Task(StrEnum):
    """What a model can do; each unlocks its routes."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    SCORE = "score"
    CLASSIFY = "classify"
    TRANSCRIPTION = "transcription"


WRITING = frozenset((Task.CHAT, Task.COMPLETIONS))
POOLING = frozenset((Task.EMBEDDINGS, Task.SCORE, Task.CLASSIFY))


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


class Protocol(StrEnum):
    """What a hosted target speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


EGRESS_USD_PER_GB = {Provider.AWS: 0.09, Provider.GCP: 0.12, Provider.ONPREM: 0.0}
"""List prices to the internet, first terabytes, 2026-11: AWS data transfer out, GCP premium tier."""


class PoolSpec(Spec):
    """Nodes of one instance type at a site."""

    name: Name
    instance_type: str = Field(description="the provider's name of the machine type")
    accelerator: str | None = Field(None, description="Ray's accelerator type (L4, A100, H100 …); unset means CPU only")
    gpus: int = Field(0, ge=0, le=16, description="GPUs per node")
    cpus: int = Field(4, ge=1, description="vCPUs per node")
    market: Market = Market.ON_DEMAND
    usd_per_hour: float = Field(ge=0, description="USD per node and hour")
    min_nodes: int = Field(0, ge=0, le=1000)
    max_nodes: int = Field(1, ge=1, le=1000)

    @property
    def resource(self) -> str:
        """The Ray resource that pins a placement to this pool's nodes."""
        return f"pool:{self.name}"


class MachinesSpec(Spec):
    """How `ray up` finds or makes the machines of one cluster."""

    head: str = Field(description="instance type of the head node; onprem: its host name or address")
    hosts: tuple[str, ...] = Field((), description="onprem: worker host names or addresses")
    zones: tuple[str, ...] = Field((), description="availability zones; unset means all of the region")
    image: str | None = Field(
        None, description="AMI id, GCE image; unset means the provider's Ubuntu 24.04 with NVIDIA drivers"
    )
    project: str | None = Field(None, description="gcp: project id")
    identity: str | None = Field(None, description="aws: instance profile ARN; gcp: service account e-mail")
    ssh_user: str = "ubuntu"


class SiteSpec(Spec):
    """One Ray cluster in one place."""

    name: Name
    provider: Provider
    region: str = Field(description="the provider's region, or a name of your own")
    jurisdiction: str = Field(description="where data is processed, for residency: us, eu, ch …")
    endpoint: HttpUrl = Field(description="base URL at which the ingress reaches the site's Serve proxy")
    token_env: EnvName | None = Field(
        None, description="environment variable that holds the site's token; unset means RAYFLEET_TOKEN_<SITE>"
    )
    store: StoreSpec
    machines: MachinesSpec
    pools: tuple[PoolSpec, ...] = Field(min_length=1)
    egress_usd_per_gb: float | None = Field(
        None, ge=0, description="USD per GB of answers; unset means the provider's list price to the internet"
    )
    tenants: tuple[Name, ...] = Field((), description="whose requests it may serve; empty means everyone's")

    @property
    def egress_price(self) -> float:
        """USD per GB."""
        return EGRESS_USD_PER_GB[self.provider] if self.egress_usd_per_gb is None else self.egress_usd_per_gb

    @property
    def token_variable(self) -> str:
        return self.token_env or "RAYFLEET_TOKEN_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper())

    def pool(self, name: str) -> PoolSpec:
        return next(pool for pool in self.pools if pool.name == name)


class ModelSpec(Spec):
    """A logical name that clients ask for, and the one release of its weights that serves it."""

    name: Name
    source: str = Field(
        description="what `rayfleet weights push` reads: a directory, hf://org/repo@revision, s3://bucket/… or gs://…"
    )
    release: ReleaseId = Field(
        description="first 12 hex digits of the release's digest, as `rayfleet weights push` prints it"
    )
    tasks: tuple[Task, ...] = Field(min_length=1)
    max_model_len: int = Field(ge=16, description="tokens of prompt and answer together")
    policy: PolicyName | None = Field(
        None, description="a preset or one of routing.policies; unset means routing.policy"
    )
    jurisdictions: tuple[str, ...] = Field(
        (), description="the only ones where its requests may be processed; empty means all"
    )


class BatchingSpec(Spec):
    """vLLM's continuous batching."""

    max_num_seqs: int = Field(64, ge=1, description="sequences in one batch; also the placement's capacity per replica")
    max_num_batched_tokens: int = Field(2048, ge=16, description="tokens in one step")


class Loading(StrEnum):
    """How an engine gets its weights."""

    CACHED = "cached"
    """From the node's disk, where every part was verified."""
    STREAMED = "streamed"
    """Straight from the site's store (vLLM's `runai_streamer`): what the replicator verified there is believed."""


class PlacementSpec(Spec):
    """A model at a site."""

    model: Name
    site: Name
    pool: Name
    gpus: float = Field(
        1, ge=0, le=64, description="GPUs per replica: a fraction of one card, or whole cards; 0 on CPU pools"
    )
    cpus: float = Field(1, gt=0, description="CPUs per replica")
    batching: BatchingSpec = BatchingSpec()
    autoscaling: AutoscalingSpec = AutoscalingSpec()
    loading: Loading = Field(
        Loading.CACHED, description="cached: from the node's disk; streamed: from the site's store"
    )
    engine: dict[str, Any] = Field(
        default_factory=dict, description="further vLLM engine arguments, passed as they are"
    )

    @property
    def capacity(self) -> int:
        """Requests that one replica runs at once."""
        return self.batching.max_num_seqs


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


class ContinuationSpec(Spec):
    """Finishing a cut stream on another site."""

    enabled: bool = True
    stall_s: float = Field(10, gt=0, description="seconds without a byte after which a running stream counts as cut")
    max_times: int = Field(3, ge=0, description="per request")


class RoutingSpec(Spec):
    """How the ingress watches, chooses and retries."""

    poll_interval_s: float = Field(1, gt=0, le=60, description="seconds between two readings of a site's state")
    state_max_age_s: float = Field(5, gt=0, description="an older state counts only while requests succeed there")
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


class HostedModelSpec(Spec):
    """A model of the fleet under the name and the price that a hosted target has for it."""

    model: Name
    name: str = Field(min_length=1, description="the target's own name for it")
    usd_per_million_input: float = Field(ge=0)
    usd_per_million_output: float = Field(ge=0)


class HostedSpec(Spec):
    """An external API, as a last resort or priced like a site."""

    name: Name
    url: HttpUrl = Field(description="base URL, up to and with /v1")
    protocol: Protocol = Protocol.OPENAI
    key_env: EnvName = Field(description="environment variable of the ingress that holds the API key")
    jurisdiction: str = Field(description="where the provider processes data")
    retains_data: bool = Field(True, description="whether the provider may keep prompts")
    use: Literal["last_resort", "by_price"] = "last_resort"
    max_in_flight: int = Field(256, ge=1)
    models: tuple[HostedModelSpec, ...] = Field(min_length=1)


class IngressSpec(Spec):
    """The global endpoint and the cluster that it runs on."""

    provider: Provider = Provider.AWS
    region: str = "us-east-1"
    machines: MachinesSpec
    port: int = Field(8000, ge=1, le=65535, description="clients' port, which the replicas own themselves")
    serve_port: int = Field(8001, ge=1, le=65535, description="port of Ray Serve's own HTTP route to the same code")
    replicas: int = Field(1, ge=1, le=64, description="fewest, where there is a max_replicas")
    max_replicas: int | None = Field(None, ge=1, le=64, description="unset means that their number is fixed")
    requests_per_replica: float = Field(2000, gt=0, description="open requests that one replica should have")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="larger request bodies are answered with 413")
    drain_s: float = Field(120, gt=0, description="seconds that running answers get when a replica is replaced")
    request_log: str | None = Field(None, description="directory of the request log; unset means none")
    request_log_bytes: int = Field(64 * 2**20, ge=2**16, description="size at which a log file is rotated")
    request_log_files: int = Field(16, ge=1, le=1000, description="files kept per replica")


class KeySpec(Spec):
    """An API key. Only its hash is kept: `rayfleet key` makes both."""

    name: Name
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    tenant: Name | None = Field(None, description="whom requests are billed to; unset means the key's name")
    operator: bool = Field(False, description="may drain sites and look into other tenants' choices")
    models: tuple[Name, ...] = Field((), description="the only ones it may ask for; empty means all")
    jurisdictions: tuple[str, ...] = Field(
        (), description="the only ones where its requests may be processed; empty means all"
    )
    hosted: Literal["any", "no_retention", "never"] = Field("any", description="which hosted targets may serve it")
    policy: PolicyName | None = Field(None, description="a preset or one of routing.policies; unset means the model's")

    @property
    def billed_to(self) -> str:
        return self.tenant or self.name


class FleetSpec(Spec):
    """Everything that one `fleet.yaml` declares."""

    version: Literal[1] = 1
    name: Name
    sites: tuple[SiteSpec, ...] = Field(min_length=1)
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    placements: tuple[PlacementSpec, ...] = Field(min_length=1)
    hosted: tuple[HostedSpec, ...] = ()
    weights: WeightsSpec
    ingress: IngressSpec
    routing: RoutingSpec = RoutingSpec()
    keys: tuple[KeySpec, ...] = ()

    def site(self, name: str) -> SiteSpec:
        return next(site for site in self.sites if site.name == name)

    def model(self, name: str) -> ModelSpec:
        return next(model for model in self.models if model.name == name)

    def placements_at(self, site: str) -> tuple[PlacementSpec, ...]:
        return tuple(placement for placement in self.placements if placement.site == site)
