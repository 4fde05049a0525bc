"""From a card's driver to the number of replicas, on a real Ray cluster."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray import serve

from autoscaling import ray_notes
from autoscaling.ray_config import autoscaling_config
from autoscaling.ray_notes import Word
from clusters.scaling import AutoscalingSpec, ScalingPolicy
from serve_app.engine_report import EngineStats, autoscaling_stats
from serve_app.gpu_usage import GpuUsage
from tests.fakes.nvml import GPU_IS_LOST, Card, FakeNvml, compiled
from tests.serve_app.waiting import wait_for

MODEL = "chat"
CARD = "GPU-0000"
TIMEOUT_S = 90

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def nvml(tmp_path: Path) -> Iterator[FakeNvml]:
    fake = compiled(tmp_path) or pytest.skip("there is no C compiler")
    with pytest.MonkeyPatch.context() as patch:
        # Left to itself, Ray makes a token for this user, and tells all processes to come to ask for one.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
            serve.start(proxy_location="Disabled")
            yield fake
            serve.shutdown()
        finally:
            ray.shutdown()


def test_busy_cards_ask_for_replicas_and_lost_ones_for_nothing(nvml: FakeNvml) -> None:
    nvml.says({CARD: Card(30)})
    _place(nvml)
    _reads("0.30 GPUs busy", 1)
    nvml.says({CARD: Card(95)})
    _reads("GPUs busy", 2)
    nvml.says({CARD: Card(0, GPU_IS_LOST)})
    _reads("no replica reported how busy its GPUs are", 2)


def _place(nvml: FakeNvml) -> None:
    class Placed:
        """What a replica does about its cards, without an engine that needs some."""

        def __init__(self) -> None:
            self._gpu_usage = GpuUsage([CARD])
            self._watching = asyncio.create_task(self._gpu_usage.watch())

        async def record_autoscaling_stats(self) -> dict[str, float]:
            return autoscaling_stats(EngineStats(), self._gpu_usage.share(time.monotonic()))

    scaling = AutoscalingSpec(policy=ScalingPolicy.UTILISATION, max_replicas=2, window_s=2, predictive=False)
    deployment = serve.deployment(
        Placed,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": nvml.environment}},
        autoscaling_config=autoscaling_config(scaling),
    )
    serve.run(deployment.bind(), name=MODEL, route_prefix=None)


def _reads(reason: str, target: int) -> None:
    """Waits until the autoscaler says so."""

    def said() -> bool:
        word = ray_notes.read(MODEL, Word)
        return word is not None and reason in word.reason and word.target == target

    wait_for(said, TIMEOUT_S)
