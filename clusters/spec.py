"""The shape of `fleet.yaml`: every field with its unit and default. Rules that span fields live in
`fleet_file/rules.py`; `check.py` applies both."""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from clusters.batching import BatchingSpec, SpeculationSpec, derived
from clusters.fields import EnvName, HttpUrl, Name, PolicyName, ReleaseId, Spec
from clusters.mix import SpotSpec
from clusters.notices.notice import NoticeSource
from clusters.routing import RoutingSpec
from clusters.scaling import AutoscalingSpec, PlannerSpec
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
    INFER = "infer"
    """Tensors in, tensors out: a `torch.export` program, not an engine."""


WRITING = frozenset((Task.CHAT, Task.COMPLETIONS))
POOLING = frozenset((Task.EMBEDDINGS, Task.SCORE, Task.CLASSIFY))
WORDLESS = POOLING | {Task.INFER}
"""Their answers have no tokens, and come at once."""


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
    subnet: str | None = Field(
        None, pattern=r"^subnet-[0-9a-f]+$", description="aws: of its nodes, so that they are in one zone"
    )
    notices: NoticeSource | None = Field(
        None, description="who tells spot nodes that they are taken back; unset means the site's provider"
    )

    @property
    def resource(self) -> str:
        """The Ray resource that each of this pool's nodes has one of."""
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

    def notice_source(self, pool: PoolSpec) -> NoticeSource:
        """Whom to ask on the pool's nodes. Only spot nodes are taken back."""
        if pool.market is not Market.SPOT:
            return NoticeSource.NONE
        own = {Provider.AWS: NoticeSource.AWS, Provider.GCP: NoticeSource.GCP}
        return pool.notices or own.get(self.provider, NoticeSource.NONE)


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
    max_model_len: int = Field(
        0, ge=0, description="tokens of prompt and answer together; left out where the task is infer"
    )
    policy: PolicyName | None = Field(
        None, description="a preset or one of routing.policies; unset means routing.policy"
    )
    jurisdictions: tuple[str, ...] = Field(
        (), description="the only ones where its requests may be processed; empty means all"
    )


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
    spot: SpotSpec | None = Field(None, description="unset means that all replicas are on the nodes of `pool`")
    gpus: float = Field(
        1, ge=0, le=64, description="GPUs per replica: a fraction of one card, or whole cards; 0 on CPU pools"
    )
    cpus: float = Field(1, gt=0, description="CPUs per replica")
    batching: BatchingSpec = BatchingSpec()
    prefix_caching: bool = Field(True, description="whether prompts that begin alike share their KV cache")
    speculation: SpeculationSpec | None = None
    warm_up_s: float = Field(
        120, gt=0, le=3600, description="a new replica has failed where its own first requests take longer"
    )
    autoscaling: AutoscalingSpec = AutoscalingSpec()
    loading: Loading = Field(
        Loading.CACHED, description="cached: from the node's disk; streamed: from the site's store"
    )
    engine: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of vLLM's, by their names in Python"
    )

    @property
    def pools(self) -> tuple[str, ...]:
        """Those whose nodes its replicas may be on."""
        return (self.pool, *(self.spot.pools if self.spot else ()))

    @property
    def resource(self) -> str:
        """The Ray resource that pins its replicas to those nodes."""
        return f"placement:{self.model}" if self.spot else f"pool:{self.pool}"

    @property
    def capacity(self) -> int:
        """Requests that one replica runs at once."""
        return self.batching.max_num_seqs


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
    planner: PlannerSpec = PlannerSpec()
    keys: tuple[KeySpec, ...] = ()

    @field_validator("placements")
    @classmethod
    def _with_batching(cls, placements: tuple[PlacementSpec, ...], info: ValidationInfo) -> tuple[PlacementSpec, ...]:
        """What `batching` leaves unset follows from the card, once and here: everybody else sees numbers."""
        pools = {(site.name, pool.name): pool for site in info.data.get("sites", ()) for pool in site.pools}
        models = {model.name: model for model in info.data.get("models", ())}
        return tuple(
            _batched(placement, pools.get((placement.site, placement.pool)), models.get(placement.model))
            for placement in placements
        )

    def site(self, name: str) -> SiteSpec:
        return next(site for site in self.sites if site.name == name)

    def model(self, name: str) -> ModelSpec:
        return next(model for model in self.models if model.name == name)

    def placements_at(self, site: str) -> tuple[PlacementSpec, ...]:
        return tuple(placement for placement in self.placements if placement.site == site)


def _batched(placement: PlacementSpec, pool: PoolSpec | None, model: ModelSpec | None) -> PlacementSpec:
    if pool is None or model is None or not model.max_model_len:  # a mistake, which rules tell, or tensors
        return placement
    writes = bool(WRITING.intersection(model.tasks))
    batching = derived(
        placement.batching, pool.accelerator, placement.gpus, placement.cpus, model.max_model_len, writes
    )
    return placement.model_copy(update={"batching": batching})
