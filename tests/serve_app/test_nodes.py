"""What a site asks Ray for, when the replica that asks is replaced, and when it ends for good."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import ray
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from autoscaling import ray_notes
from autoscaling.ray_notes import Word
from clusters.spec import PlacementSpec, PoolSpec
from serve_app.nodes import MIX_INTERVAL_S, REPEAT_INTERVAL_S, SiteNodes
from serve_app.site_args import NodesAppArgs

TIMEOUT_S = 30
CARD = {"instance_type": "g6.2xlarge", "accelerator": "L4", "gpus": 1, "max_nodes": 3}
OWN = PoolSpec.model_validate({**CARD, "name": "own", "usd_per_hour": 0.9})
SPOT = PoolSpec.model_validate({**CARD, "name": "spot", "market": "spot", "notices": "none", "usd_per_hour": 0.4})
CHAT = PlacementSpec.model_validate(
    {"model": "chat", "site": "east", "pool": "own", "spot": {"pools": ["spot"], "min_on_demand_share": 0.5}}
)
ASKED = {"pool:own": 1, "pool:spot": 1}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_enable_autoscaler_v2", "1")
        ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.timeout(120)
async def test_what_is_asked_for_outlives_a_redeploy_and_not_the_application() -> None:
    ray_notes.write("chat", Word(target=2, reason="two", at=time.time() + 600))
    before, after = _replica(), _replica()
    await _until(lambda: _asked() == ASKED)
    before.__del__()
    await _until(lambda: _asked() == ASKED, timeout_s=15)
    after.__del__()
    await asyncio.sleep(REPEAT_INTERVAL_S + 5 * MIX_INTERVAL_S)
    assert not _asked(), "nobody is left who would take it back"


def _replica() -> SiteNodes:
    return SiteNodes(NodesAppArgs(pools=(OWN, SPOT), notices={}, mixed=(CHAT,)))


def _asked() -> Counter[str]:
    """Nodes by their pool's resource, as Ray's autoscaler is told."""
    state = get_cluster_resource_state(internal_kv_get_gcs_client())
    return Counter(
        resource
        for constraint in state.cluster_resource_constraints
        for each in constraint.resource_requests
        for resource in each.request.resources_bundle
        for _ in range(each.count)
    )


async def _until(reached: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(reached):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.1)
