"""The Serve deployment of a placement whose model is a program of tensors."""

import asyncio
import os
import time
from pathlib import Path

import torch
from ray import serve
from ray.serve import Application

from clusters.accelerators import memory_utilization
from clusters.render import engine_deployment
from serve_app.engine_report import autoscaling_stats, report_load
from serve_app.gate import TokenGate, site_token
from serve_app.gpu_usage import GpuUsage, card_of
from serve_app.mending import mended
from serve_app.site_args import ModelAppArgs
from serve_app.tensors.batcher import Batcher
from serve_app.tensors.program import Program
from serve_app.tensors.site_app import TensorRoutes
from weights.node.cache import fetch
from weights.node.pins import pinned
from weights.node.slot import Slot
from weights.store import open_store

MAX_WAIT_MS = 5.0


def tensor_app(args: ModelAppArgs) -> Application:
    """The application of one placement."""
    placement = args.placement
    deployment = serve.deployment(
        serve.ingress()(TensorServer),
        name=engine_deployment(args.model.name),
        max_ongoing_requests=10 * placement.capacity,
        max_queued_requests=10 * placement.capacity,
        # Which tells the ingress to go elsewhere, and is no sign of illness.
        backpressure_config={"status_code": 429},
        ray_actor_options={
            "num_cpus": placement.cpus,
            "num_gpus": placement.gpus,
            "resources": {args.placement.resource: 0.001},
        },
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
        cards = [card_of(torch.device("cuda"))] if args.gpu_usage else []
        self._gpu_usage = GpuUsage(cards)
        self._tasks = [asyncio.create_task(report_load(args.model.name, lambda: self._batcher.stats))]
        if cards:
            self._tasks.append(asyncio.create_task(self._gpu_usage.watch()))
        routes = TensorRoutes(args.model.name, args.model.release, program.signature, self._batcher, rows)
        return TokenGate(routes.app(), self._token)

    async def check_health(self) -> None:
        for task in self._tasks:
            if task.done():
                raise RuntimeError("the replica no longer reports how it does") from task.exception()
        self._batcher.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return autoscaling_stats(self._batcher.stats, self._gpu_usage.share(time.monotonic()))


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
        keep=pinned(Path(args.weights.cache_dir)),
    )


def _warm(release: Path, args: ModelAppArgs) -> Program:
    """Raises BadRelease."""
    device = device_of(args)
    torch.set_num_threads(max(1, int(args.placement.cpus)))
    program = Program.load(release, device)
    program.warm_up((1, args.placement.capacity))
    return program


def device_of(args: ModelAppArgs) -> str:
    """Of a fraction of a card, torch takes no more memory than what its process's CUDA context leaves of it."""
    if args.device == "cpu":
        return "cpu"
    torch.cuda.set_per_process_memory_fraction(memory_utilization(args.accelerator, args.placement.gpus))
    return "cuda"
