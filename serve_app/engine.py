"""Binds a placement to `ray.serve.llm`: its arguments and its server."""

import asyncio
import os
from typing import Any

import vllm
from ray.serve.llm import LLMConfig, LLMServer

from autoscaling.ray_config import autoscaling_config
from clusters.accelerators import CPU_KV_CACHE_BYTES, memory_utilization
from clusters.spec import WRITING, Loading
from serve_app.engine_report import autoscaling_stats, report_load
from serve_app.engine_stats import latest
from serve_app.engine_weights import EngineWeights, WeightsCallback, streaming_arguments
from serve_app.gate import TokenGate, site_token
from serve_app.site_args import ModelAppArgs
from serve_app.start_up import journal
from serve_app.warm_up import WarmUp, warm_up
from weights.node.compile_cache import engine_name


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
        experimental_configs={"token_variable": args.token_variable, "warm_up": _warm_up(args).model_dump()},
        deployment_config={
            "max_ongoing_requests": 10 * placement.capacity,
            "ray_actor_options": {"num_cpus": 0},
            "autoscaling_config": autoscaling_config(placement.autoscaling),
        },
    )


def _warm_up(args: ModelAppArgs) -> WarmUp:
    return WarmUp(
        model=args.model.name,
        tasks=args.model.tasks,
        max_model_len=args.model.max_model_len,
        sequences=args.placement.batching.max_num_seqs,
        tokens=args.placement.batching.max_num_batched_tokens,
        deadline_s=args.placement.warm_up_s,
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
    bundle = {"CPU": placement.cpus / cards, "GPU": placement.gpus / cards, placement.resource: 0.001}
    return {"bundles": [{resource: amount for resource, amount in bundle.items() if amount}] * cards}


def _engine_arguments(args: ModelAppArgs) -> dict[str, Any]:
    """vLLM's arguments: ours from the placement, then the user's own, which win."""
    placement = args.placement
    arguments: dict[str, Any] = {
        "max_model_len": args.model.max_model_len,
        "max_num_seqs": placement.batching.max_num_seqs,
        "max_num_batched_tokens": placement.batching.max_num_batched_tokens,
        "enable_chunked_prefill": placement.batching.chunked_prefill,
    }
    if not placement.prefix_caching:
        arguments["enable_prefix_caching"] = False
    elif WRITING.intersection(args.model.tasks):  # whether other models can, vLLM knows
        arguments["enable_prefix_caching"] = True
    if placement.speculation:
        arguments["speculative_config"] = {
            "method": placement.speculation.method,
            "num_speculative_tokens": placement.speculation.tokens,
            "prompt_lookup_min": 1,
            "prompt_lookup_max": placement.speculation.max_ngram,
        }
    if args.device == "cpu":
        arguments["enforce_eager"] = True
        arguments["kv_cache_memory_bytes"] = CPU_KV_CACHE_BYTES
    else:
        arguments["gpu_memory_utilization"] = memory_utilization(args.pool.accelerator, placement.gpus)
        arguments["tensor_parallel_size"] = max(1, int(placement.gpus))
    if placement.loading is Loading.STREAMED:
        arguments |= streaming_arguments(args.store)
    return arguments | placement.engine


class EngineServer(LLMServer):  # type: ignore[misc]
    """Ray's LLM server, behind the site's token, telling the autoscaler and the site agent how its engine does."""

    async def start(self) -> None:
        # Before the engine loads for minutes.
        self._token = site_token(self._llm_config.experimental_configs["token_variable"], os.environ)
        journal.ended("imports")
        await super().start()
        journal.ended("engine")
        self._reporter = asyncio.create_task(report_load(self._llm_config.model_id, latest))

    async def __serve_build_asgi_app__(self) -> TokenGate:
        """Serve calls a replica ready once it has this."""
        app = await super().__serve_build_asgi_app__()
        await warm_up(app, WarmUp.model_validate(self._llm_config.experimental_configs["warm_up"]))
        journal.ended("warm-up")
        journal.publish(self._llm_config.model_id)
        weights = EngineWeights.model_validate(self._llm_config.callback_config.callback_kwargs)
        self._saving = asyncio.create_task(asyncio.to_thread(weights.save_compiled))
        return TokenGate(app, self._token)

    async def check_health(self) -> None:
        if self._reporter.done():
            raise RuntimeError("the engine no longer reports to the site agent") from self._reporter.exception()
        await super().check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return autoscaling_stats(latest())
