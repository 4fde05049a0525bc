"""The Serve deployment of a placement whose model is a program of tensors."""

import asyncio
import os
from pathlib import Path

import torch
from ray import serve
from ray.serve import Application

from autoscaling.ray_config import autoscaling_config
from serve_app.engine_report import autoscaling_stats, report_load
from serve_app.gate import TokenGate, site_token
from serve_app.mending import mended
from serve_app.site_args import ENGINE_DEPLOYMENT, ModelAppArgs
from serve_app.tensors.batcher import Batcher
from serve_app.tensors.program import Program
from serve_app.tensors.site_app import TensorRoutes
from weights.node.cache import fetch
from weights.node.slot import Slot
from weights.store import open_store

MAX_WAIT_MS = 5.0


def tensor_app(args: ModelAppArgs) -> Application:
    """The application of one placement."""
    placement = args.placement
    deployment = serve.deployment(
        serve.ingress()(TensorServer),
        name=ENGINE_DEPLOYMENT,
        max_ongoing_requests=10 * placement.capacity,
        ray_actor_options={
            "num_cpus": placement.cpus,
            "num_gpus": placement.gpus,
            "resources": {args.placement.resource: 0.001},
        },
        autoscaling_config=autoscaling_config(placement.autoscaling),
    )
    return deployment.bind(args)


class TensorServer:
    """One replica: behind the site's token, telling the autoscaler and the site agent of its rows."""

    def __init__(self, args: ModelAppArgs):
        self._args = args
        self._token = site_token(args.token_variable, os.environ)

    async def __serve_build_asgi_app__(self) -> TokenGate:
        """The replica is ready when this is done: weights, program and a first run of both batch sizes."""
        args = self._args
        release = await mended(lambda: asyncio.to_thread(_fetched, args), args.model.name, args.model.release)
        program = await asyncio.to_thread(_warm, release, args)
        waits = args.placement.batching.max_wait_ms
        rows = args.placement.capacity
        self._batcher = Batcher(program, rows, (MAX_WAIT_MS if waits is None else waits) / 1000)
        self._reporter = asyncio.create_task(report_load(args.model.name, lambda: self._batcher.stats))
        routes = TensorRoutes(args.model.name, args.model.release, program.signature, self._batcher, rows)
        return TokenGate(routes.app(), self._token)

    async def check_health(self) -> None:
        if self._reporter.done():
            raise RuntimeError("the replica no longer reports to the site agent") from self._reporter.exception()
        self._batcher.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return autoscaling_stats(self._batcher.stats)


def _fetched(args: ModelAppArgs) -> Path:
    """The release on this node's disk, where nothing evicts it before this process ends. Raises WeightsError."""
    Slot(Path(args.weights.cache_dir), args.model.name, args.model.release).hold()
    return fetch(
        open_store(args.store),
        args.model.name,
        args.model.release,
        args.weights.cache_dir,
        site=args.placement.site,
        parallel_parts=args.weights.parallel_parts,
        cache_bytes=args.weights.cache_bytes,
        keep=frozenset(args.keep),
    )


def _warm(release: Path, args: ModelAppArgs) -> Program:
    """Raises BadRelease."""
    device = _device(args)
    torch.set_num_threads(max(1, int(args.placement.cpus)))
    program = Program.load(release, device)
    program.warm_up((1, args.placement.capacity))
    return program


def _device(args: ModelAppArgs) -> str:
    """Of a fraction of a card, torch takes no more memory than that fraction."""
    if args.device == "cpu":
        return "cpu"
    torch.cuda.set_per_process_memory_fraction(min(args.placement.gpus, 1.0))
    return "cuda"
