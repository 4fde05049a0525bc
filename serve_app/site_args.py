"""The `args` of a site's Serve applications, as `clusters/render.py` writes them into `config.yaml`."""

from clusters.fields import Spec
from clusters.notices.notice import NoticeSource
from clusters.render import Device
from clusters.spec import ModelSpec, PlacementSpec, PoolSpec
from clusters.storage import StoreSpec, WeightsSpec
from weights.copying.reconcile import SourceSpec, WantSpec

ENGINE_DEPLOYMENT = "EngineServer"
"""`ray.serve.llm` names a model's deployment after the server's class."""


class ModelAppArgs(Spec):
    """Of a model's application. `device` cpu runs vLLM on the CPU and books GPUs only as Ray resources."""

    model: ModelSpec
    placement: PlacementSpec
    pool: PoolSpec
    device: Device
    store: StoreSpec
    token_variable: str
    weights: WeightsSpec
    keep: tuple[str, ...]
    """`model/release` of every placement of the site: no node's cache gives them up for another."""


class AgentPlacement(Spec):
    """What the agent knows of a placement beforehand. `capacity` is requests per replica."""

    model: str
    release: str
    capacity: int


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
