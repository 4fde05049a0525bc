"""The `args` of a site's Serve applications, as `clusters/render.py` writes them into `config.yaml`."""

from typing import Literal

from clusters.spec import ModelSpec, PlacementSpec, PoolSpec, Spec, StoreSpec

Device = Literal["gpu", "cpu"]

ENGINE_DEPLOYMENT = "EngineServer"
"""`ray.serve.llm` names a model's deployment after the server's class."""


class PlacementArgs(Spec):
    """One model at this site. `device` cpu runs vLLM on the CPU and books GPUs only as Ray resources."""

    model: ModelSpec
    placement: PlacementSpec
    pool: PoolSpec
    device: Device


class ModelAppArgs(PlacementArgs):
    """Of a model's application."""

    store: StoreSpec
    token_variable: str
    cache_dir: str
    parallel_files: int


class AgentAppArgs(Spec):
    """Of the site agent's application."""

    site: str
    token_variable: str
    placements: tuple[PlacementArgs, ...]
