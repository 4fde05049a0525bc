"""Binds a placement to `ray.serve.llm`: its arguments and its server."""

import asyncio
import os
import time
from typing import Any

import vllm
from ray.serve.llm import LLMConfig, LLMServer

from clusters.accelerators import CPU_KV_CACHE_BYTES, memory_utilization
from clusters.spec import WRITING, Loading
from serve_app.engine_report import autoscaling_stats, report_load
from serve_app.engine_stats import latest
from serve_app.engine_weights import EngineWeights, WeightsCallback, streaming_arguments
from serve_app.gate import TokenGate, site_token
from serve_app.gpu_usage import CardOfWorker, GpuUsage
from serve_app.site_args import ModelAppArgs
from serve_app.start_up import journal
from serve_app.warm_up import WarmUp, warm_up
from weights.node.compile_cache import engine_name

CARDS_TIMEOUT_S = 60.0
FULL_RETRY_AFTER_S = 1.0


def llm_config(args: ModelAppArgs) -> LLMConfig:
    """Everything `ray.serve.llm` needs to run this placement."""
    placement, arguments = args.placement, _engine_arguments(args)
    return LLMConfig(
        model_loading_config={"model_id": args.model.name},
        # No accelerator_type: `resource` pins it to its pools, and nodes don't bear every name that Ray has for a card.
        accelerator_config={"kind": args.device},
        placement_group_config=_bundles(args),
        engine_kwargs=arguments,
        server_cls=EngineServer,
        callback_config={
            "callback_class": WeightsCallback,
            "callback_kwargs": _weights(args).model_dump(mode="json"),
        },
        experimental_configs={
            "token_variable": args.token_variable,
            "warm_up": _warm_up(args, arguments).model_dump(),
            "gpu_usage": args.gpu_usage,
        },
        deployment_config={
            "max_ongoing_requests": 10 * placement.capacity,
            # What waits for one of those; more goes elsewhere. Not 503, which to the ingress is a sign of illness.
            "max_queued_requests": 10 * placement.capacity,
            "backpressure_config": {"status_code": 429, "retry_after_s": FULL_RETRY_AFTER_S},
            "ray_actor_options": {"num_cpus": 0},
        },
    )


def _warm_up(args: ModelAppArgs, arguments: dict[str, Any]) -> WarmUp:
    return WarmUp(
        model=args.model.name,
        tasks=args.model.tasks,
        max_model_len=arguments["max_model_len"],
        sequences=arguments["max_num_seqs"],
        tokens=arguments["max_num_batched_tokens"],
        deadline_s=args.placement.warm_up_s,
    )


def _weights(args: ModelAppArgs) -> EngineWeights:
    return EngineWeights(
        model=args.model.name,
        release=args.model.release,
        site=args.placement.site,
        engine=engine_name(vllm.__version__, args.accelerator or args.device),
        loading=args.placement.loading,
        store=args.store,
        weights=args.weights,
        token_variable=args.token_variable,
    )


def _bundles(args: ModelAppArgs) -> dict[str, Any]:
    """One for each worker, all on one node, as `clusters/packing.py` has it."""
    placement, workers = args.placement, _workers(args)
    bundle = {"CPU": placement.cpus / workers, "GPU": placement.gpus / workers, placement.resource: 0.001}
    bundles = [{resource: amount for resource, amount in bundle.items() if amount}] * workers
    return {"bundles": bundles, "strategy": "STRICT_PACK"}


def _workers(args: ModelAppArgs) -> int:
    """Over whose cards the model is split. An engine on the CPU is one, whatever it books."""
    return max(1, int(args.placement.gpus)) if args.device == "gpu" else 1


def _engine_arguments(args: ModelAppArgs) -> dict[str, Any]:
    """vLLM's arguments: ours, and then the placement's `engine`, which `clusters/fleet_file/engines.py` keeps from
    contradicting them."""
    placement, own = args.placement, dict(args.placement.engine)
    stages = own.pop("pipeline_parallel_size", 1)
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
        arguments["gpu_memory_utilization"] = memory_utilization(args.accelerator, placement.gpus)
        arguments["tensor_parallel_size"] = _workers(args) // stages
        arguments["pipeline_parallel_size"] = stages
    if args.gpu_usage:
        arguments["worker_extension_cls"] = f"{CardOfWorker.__module__}.{CardOfWorker.__name__}"
    if placement.loading is Loading.STREAMED:
        arguments |= streaming_arguments(args.store)
    return arguments | own


class EngineServer(LLMServer):  # type: ignore[misc]
    """Ray's LLM server, behind the site's token, telling the autoscaler and the site agent how its engine does."""

    async def start(self) -> None:
        # Before the engine loads for minutes.
        self._token = site_token(self._llm_config.experimental_configs["token_variable"], os.environ)
        journal.ended("imports")
        await super().start()
        journal.ended("engine")
        cards = await self._cards()
        self._gpu_usage = GpuUsage(cards)
        self._tasks = [asyncio.create_task(report_load(self._llm_config.model_id, latest))]
        if cards:
            self._tasks.append(asyncio.create_task(self._gpu_usage.watch()))

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
        for task in self._tasks:
            if task.done():
                raise RuntimeError("the engine no longer reports how it does") from task.exception()
        await super().check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return autoscaling_stats(latest(), self._gpu_usage.share(time.monotonic()))

    async def _cards(self) -> list[str]:
        """Of its workers. None where nobody asks how busy they are."""
        if not self._llm_config.experimental_configs["gpu_usage"]:
            return []
        cards: list[str] = await self.collective_rpc(CardOfWorker.rayfleet_card.__name__, CARDS_TIMEOUT_S)
        return cards
