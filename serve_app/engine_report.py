"""What a replica says of its load, to Serve's autoscaler and to the site agent."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve

from autoscaling.ray_signals import GPU_METRIC, KV_METRIC, RUNNING_METRIC, WAITING_METRIC
from clusters.render import AGENT_APP
from clusters.state import EngineSample

logger = logging.getLogger("ray.serve")

REPORT_INTERVAL_S = 0.5
REPORT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class EngineStats:
    """Requests in the batch, requests queued before it, and the share of the KV cache in use (0 to 1)."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


def autoscaling_stats(stats: EngineStats, gpu_usage: float | None = None) -> dict[str, float]:
    """For `record_autoscaling_stats` of a deployment. `gpu_usage` is 0 to 1; None: nothing is known of it."""
    told = {RUNNING_METRIC: stats.running, WAITING_METRIC: stats.waiting, KV_METRIC: stats.kv_usage}
    return told if gpu_usage is None else told | {GPU_METRIC: gpu_usage}


async def report_load(model: str, latest: Callable[[], EngineStats]) -> None:
    """Push this replica's samples to the agent, for ever. A lost one is not repeated: the next is on its way."""
    replica = serve.get_replica_context().replica_id.unique_id
    agent: Any = None
    while True:
        stats = latest()
        try:
            sample = EngineSample(
                replica=replica, running=stats.running, waiting=stats.waiting, kv_usage=stats.kv_usage
            )
            # In a thread: it asks the controller, and a stream must not wait for that.
            if agent is None:
                agent = await asyncio.to_thread(serve.get_app_handle, AGENT_APP)
            await asyncio.wait_for(agent.report.remote(model, sample.model_dump()), REPORT_TIMEOUT_S)
        except ValidationError as error:
            # The agent forgets who says nothing. To end here would cost the replica, with everyone's work in it.
            logger.warning("a sample of %s makes no sense, and is not told: %s", model, error)
        except (ray.exceptions.RayError, serve.exceptions.RayServeException, TimeoutError):
            agent = None
        await asyncio.sleep(REPORT_INTERVAL_S)
