"""The `args` of a site's Serve applications, as `clusters/render.py` writes them into `config.yaml`."""

from typing import Any

from clusters.batching import BatchingSpec, SpeculationSpec
from clusters.fields import Spec
from clusters.notices.notice import NoticeSource
from clusters.render import Device
from clusters.scaling import AutoscalingSpec
from clusters.spec import Loading, PlacementSpec, PoolSpec, Task
from clusters.storage import CacheSpec, StoreSpec, WeightsSpec
from weights.copying.reconcile import SourceSpec, WantSpec


class EngineModel(Spec):
    """What an engine knows of its model."""

    name: str
    release: str
    tasks: tuple[Task, ...]
    max_model_len: int


class EnginePlacement(Spec):
    """What an engine knows of its placement. `resource`: the Ray resource that pins its replicas to their nodes."""

    site: str
    resource: str
    gpus: float
    cpus: float
    batching: BatchingSpec
    prefix_caching: bool
    speculation: SpeculationSpec | None = None
    warm_up_s: float
    loading: Loading
    engine: dict[str, Any]

    @property
    def capacity(self) -> int:
        """Requests that one replica runs at once."""
        return self.batching.max_num_seqs


class ModelAppArgs(Spec):
    """Of a model's application. Ray replaces every replica when they change, so nothing is here that engines can do
    without. `device` cpu runs vLLM on the CPU and books GPUs only as Ray resources."""

    model: EngineModel
    placement: EnginePlacement
    device: Device
    accelerator: str | None = None
    gpu_usage: bool
    """Whether replicas tell how busy their cards are."""
    store: StoreSpec
    token_variable: str
    weights: CacheSpec


class AgentPlacement(Spec):
    """What the agent knows of a placement beforehand. `capacity` is requests per replica."""

    model: str
    release: str
    capacity: int
    autoscaling: AutoscalingSpec = AutoscalingSpec()


class AgentAppArgs(Spec):
    """Of the site agent's application."""

    site: str
    token_variable: str
    placements: tuple[AgentPlacement, ...]


class NodesAppArgs(Spec):
    """Of the application that looks after the site's nodes."""

    pools: tuple[PoolSpec, ...]
    notices: dict[str, NoticeSource]
    """By pool: whom its nodes ask whether they are taken back."""
    mixed: tuple[PlacementSpec, ...]
    """The placements with several pools."""


class ReplicatorAppArgs(Spec):
    """Of the site's replicator."""

    site: str
    sites: tuple[SourceSpec, ...]
    """Whose stores it may read, the home first, its own included."""
    weights: WeightsSpec
    wants: tuple[WantSpec, ...]
    pools: dict[str, str]
    """By model: the Ray resource of the nodes that keep its releases on their disks."""
