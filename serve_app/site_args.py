"""The `args` of a site's Serve applications, as `clusters/render.py` writes them into `config.yaml`."""

from clusters.render import Device
from clusters.spec import ModelSpec, PlacementSpec, PoolSpec, Spec, StoreSpec

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
    cache_dir: str
    parallel_files: int


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
