"""Binds a placement to `ray.serve.llm`: its arguments and its server."""

import asyncio
import os
import time
from typing import Any

import ray
import vllm
from ray import serve
from ray.serve.llm import LLMConfig, LLMServer

from autoscaling.ray_config import autoscaling_config
from autoscaling.ray_signals import KV_METRIC, RUNNING_METRIC, WAITING_METRIC
from clusters.render import AGENT_APP
from clusters.spec import Loading
from clusters.state import EngineSample
from serve_app.engine_stats import latest
from serve_app.engine_weights import EngineWeights, WeightsCallback, streaming_arguments
from serve_app.gate import TokenGate, site_token
from serve_app.site_args import ModelAppArgs
from weights.node.compile_cache import engine_name

REPORT_INTERVAL_S = 0.5
CPU_KV_CACHE_BYTES = 128 * 2**20
GPU_HEADROOM = 0.1
"""Share of a replica's GPU memory that vLLM leaves to CUDA contexts and activations of its neighbours."""


def llm_config(args: ModelAppArgs) -> LLMConfig:
    """Everything `ray.serve.llm` needs to run this placement."""
    placement = args.placement
    return LLMConfig(
        model_loading_config={"model_id": args.model.name},
        accelerator_type=args.pool.accelerator if args.device == "gpu" else None,
        accelerator_config={"kind": args.device},
        placement_group_config=_bundles(args),
        engine_kwargs=_engine_arguments(args),
        server_cls=EngineServer,
        callback_config={
            "callback_class": WeightsCallback,
            "callback_kwargs": _weights(args).model_dump(mode="json"),
        },
        experimental_configs={"token_variable": args.token_variable},
        deployment_config={
            "max_ongoing_requests": 10 * placement.capacity,
            "ray_actor_options": {"num_cpus": 0},
            "autoscaling_config": autoscaling_config(placement.autoscaling),
        },
    )


def _weights(args: ModelAppArgs) -> EngineWeights:
    accelerator = args.pool.accelerator if args.device == "gpu" else None
    return EngineWeights(
        model=args.model.name,
        release=args.model.release,
        site=args.placement.site,
        engine=engine_name(vllm.__version__, accelerator or args.device),
        loading=args.placement.loading,
        store=args.store,
        weights=args.weights,
        keep=frozenset(args.keep),
        token_variable=args.token_variable,
    )


def _bundles(args: ModelAppArgs) -> dict[str, Any]:
    placement = args.placement
    cards = max(1, int(placement.gpus)) if args.device == "gpu" else 1
    bundle = {"CPU": placement.cpus / cards, "GPU": placement.gpus / cards, args.pool.resource: 0.001}
    return {"bundles": [{resource: amount for resource, amount in bundle.items() if amount}] * cards}


def _engine_arguments(args: ModelAppArgs) -> dict[str, Any]:
    """vLLM's arguments: ours from the placement, then the user's own, which win."""
    placement = args.placement
    arguments: dict[str, Any] = {
        "max_model_len": args.model.max_model_len,
        "max_num_seqs": placement.batching.max_num_seqs,
        "max_num_batched_tokens": placement.batching.max_num_batched_tokens,
    }
    if args.device == "cpu":
        arguments["enforce_eager"] = True
        arguments["kv_cache_memory_bytes"] = CPU_KV_CACHE_BYTES
    else:
        arguments["gpu_memory_utilization"] = round(min(placement.gpus, 1) * (1 - GPU_HEADROOM), 3)
        arguments["tensor_parallel_size"] = max(1, int(placement.gpus))
    if placement.loading is Loading.STREAMED:
        arguments |= streaming_arguments(args.store)
    return arguments | placement.engine


class EngineServer(LLMServer):  # type: ignore[misc]
    """Ray's LLM server, behind the site's token, telling the autoscaler and the site agent how its engine does."""

    async def start(self) -> None:
        # Before the engine loads for minutes.
        self._token = site_token(self._llm_config.experimental_configs["token_variable"], os.environ)
        await super().start()
        weights = EngineWeights.model_validate(self._llm_config.callback_config.callback_kwargs)
        self._saving = asyncio.create_task(asyncio.to_thread(weights.save_compiled))
        self._reporter = asyncio.create_task(self._report())

    async def __serve_build_asgi_app__(self) -> TokenGate:
        return TokenGate(await super().__serve_build_asgi_app__(), self._token)

    async def check_health(self) -> None:
        if self._reporter.done():
            raise RuntimeError("the engine no longer reports to the site agent") from self._reporter.exception()
        await super().check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        stats = latest()
        return {RUNNING_METRIC: stats.running, WAITING_METRIC: stats.waiting, KV_METRIC: stats.kv_usage}

    async def _report(self) -> None:
        """Push a sample to the agent, for ever. A lost one is not repeated: the next is on its way."""
        replica = serve.get_replica_context().replica_id.unique_id
        agent: Any = None
        while True:
            stats = latest()
            sample = EngineSample(
                replica=replica, running=stats.running, waiting=stats.waiting, kv_usage=stats.kv_usage, at=time.time()
            )
            try:
                # In a thread: it asks the controller, and a stream must not wait for that.
                if agent is None:
                    agent = await asyncio.to_thread(serve.get_app_handle, AGENT_APP)
                await asyncio.wait_for(agent.report.remote(self._llm_config.model_id, sample.model_dump()), 5)
            except (ray.exceptions.RayError, serve.exceptions.RayServeException, TimeoutError):
                agent = None
            await asyncio.sleep(REPORT_INTERVAL_S)
