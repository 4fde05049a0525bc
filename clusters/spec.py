"""The shape of `fleet.yaml`: every field with its unit and default. Rules that span fields live in
`fleet_file/rules.py`; `check.py` applies both."""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")]
StoreUrl = Annotated[str, StringConstraints(pattern=r"^(s3|gs|file)://[^\s]+$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]


class Spec(BaseModel):
    """Frozen, and closed: an unknown field is a mistake, not an extension point."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Provider(StrEnum):
    AWS = "aws"
    GCP = "gcp"
    ONPREM = "onprem"


class Market(StrEnum):
    RESERVED = "reserved"
    ON_DEMAND = "on_demand"
    SPOT = "spot"


class Task(StrEnum):
    """What a model can do; each unlocks its OpenAI routes."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


class StoreSpec(Spec):
    """An object store, and which credentials open it. No secret is ever written here."""

    url: StoreUrl = Field(description="s3://bucket/prefix, gs://bucket/prefix or file:///directory")
    endpoint: HttpUrl | None = Field(
        None, description="of an S3-compatible or GCS server; unset means the provider's own"
    )
    region: str | None = Field(None, description="S3 signing region; unset means the profile's")
    profile: str | None = Field(
        None, description="s3: profile in the AWS credentials file; unset means the normal chain"
    )
    credentials_file: str | None = Field(
        None, description="gs: path of a service-account JSON file; unset means application default credentials"
    )


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

    @property
    def token_variable(self) -> str:
        return self.token_env or "RAYFLEET_TOKEN_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper())

    def pool(self, name: str) -> PoolSpec:
        return next(pool for pool in self.pools if pool.name == name)


class ModelSpec(Spec):
    """A logical name that clients ask for, and the one release of its weights that serves it."""

    name: Name
    source: str = Field(description="where `rayfleet weights push` reads: a directory or hf://org/repo@revision")
    release: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")] = Field(
        description="first 12 hex digits of the release's digest, as `rayfleet weights push` prints it"
    )
    tasks: tuple[Task, ...] = Field(min_length=1)
    max_model_len: int = Field(ge=16, description="tokens of prompt and answer together")


class BatchingSpec(Spec):
    """vLLM's continuous batching."""

    max_num_seqs: int = Field(64, ge=1, description="sequences in one batch; also the placement's capacity per replica")
    max_num_batched_tokens: int = Field(2048, ge=16, description="tokens in one step")


class AutoscalingSpec(Spec):
    """Bounds and damping of `autoscaling.policy`."""

    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1, le=1000)
    target_queue_depth: float = Field(8, gt=0, description="running and waiting requests that one replica should have")
    window_s: float = Field(30, gt=0, description="seconds of samples that a decision averages")
    scale_down_delay_s: float = Field(300, ge=0, description="seconds that the need must stay lower before replicas go")


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
    engine: dict[str, Any] = Field(
        default_factory=dict, description="further vLLM engine arguments, passed as they are"
    )

    @property
    def capacity(self) -> int:
        """Requests that one replica runs at once."""
        return self.batching.max_num_seqs


class RoutingSpec(Spec):
    """How the ingress watches, chooses and retries."""

    poll_interval_s: float = Field(1, gt=0, le=60, description="seconds between two readings of a site's state")
    state_max_age_s: float = Field(5, gt=0, description="a state older than this makes the site unhealthy")
    max_attempts: int = Field(3, ge=1, le=10, description="sites tried for one request before its first byte")
    connect_timeout_s: float = Field(2, gt=0)
    first_byte_timeout_s: float = Field(
        120, gt=0, description="seconds an attempt may stay silent before the next site"
    )
    idle_timeout_s: float = Field(120, gt=0, description="seconds between two chunks of an answer")


class IngressSpec(Spec):
    """The global endpoint and the cluster that it runs on."""

    provider: Provider = Provider.AWS
    region: str = "us-east-1"
    machines: MachinesSpec
    port: int = Field(8000, ge=1, le=65535)
    replicas: int = Field(1, ge=1, le=64)
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="larger request bodies are answered with 413")


class KeySpec(Spec):
    """An API key. Only its hash is kept: `rayfleet key` makes both."""

    name: Name
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class WeightsSpec(Spec):
    """Where releases are pushed first, and how they are copied on."""

    home: Name = Field(description="the site whose store receives `rayfleet weights push`")
    cache_dir: str = Field("/var/cache/rayfleet", description="node-local directory that engines load from")
    parallel_files: int = Field(4, ge=1, le=64, description="files in flight per site")


class FleetSpec(Spec):
    """Everything that one `fleet.yaml` declares."""

    version: Literal[1] = 1
    name: Name
    sites: tuple[SiteSpec, ...] = Field(min_length=1)
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    placements: tuple[PlacementSpec, ...] = Field(min_length=1)
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
