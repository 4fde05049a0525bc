"""A Ray cluster whose autoscaler starts and ends nodes: raylets on this machine, by Ray's own fake provider."""

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE
from ray.autoscaler._private.util import prepare_config

from clusters.launch.ports import free_blocks
from clusters.launch.processes import LaunchError, Run, clean_environment, end, spawn, wait_until

ROOT = Path(__file__).parents[2]
HEAD = "head"
IDLE_MINUTES = 0.05


@contextmanager
def autoscaling_cluster(rendered: dict[str, Any], environ: dict[str, str]) -> Iterator[None]:
    """The node types of a rendered ray-cluster.yaml, on this machine; this process is connected to it."""
    directory = Path(tempfile.mkdtemp(prefix="rf-", dir="/tmp"))
    run, block = Run.new(directory), free_blocks(1)[0]
    config = directory / "ray-cluster.yaml"
    config.write_text(yaml.safe_dump(_on_this_machine(rendered, f"127.0.0.1:{block.gcs}")))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        f"--autoscaling-config={config}",
        "--node-ip-address=127.0.0.1",
        f"--port={block.gcs}",
        f"--ray-client-server-port={block.client}",
        f"--dashboard-agent-listen-port={block.agent_http}",
        f"--min-worker-port={block.workers[0]}",
        f"--max-worker-port={block.workers[1]}",
        f"--temp-dir={directory / 'ray'}",
        "--include-dashboard=false",
        "--num-cpus=1",
        "--num-gpus=0",
        f"--object-store-memory={80 * 2**20}",
        "--disable-usage-stats",
    ]
    try:
        _start(run, command, clean_environment() | _settings() | environ, directory / "ray")
        ray.init(f"127.0.0.1:{block.gcs}", log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        end(run.id)
        shutil.rmtree(directory, ignore_errors=True)


def _start(run: Run, command: list[str], environ: dict[str, str], temp_dir: Path) -> None:
    """Twice if need be: a Ray node gives up after 30 s, which a busy machine may take."""
    for last in (False, True):
        try:
            process = spawn(run, HEAD, command, environ)
            wait_until(run, HEAD, (temp_dir / "ray_current_cluster").exists, process, 60)
        except LaunchError:
            end(run.id, grace_s=0)
            shutil.rmtree(temp_dir, ignore_errors=True)
            if last:
                raise
        else:
            return


def _settings() -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }


def _on_this_machine(rendered: dict[str, Any], gcs: str) -> dict[str, Any]:
    """The rendered file as Ray completes it, with nothing changed but who makes the nodes."""
    complete = prepare_config(rendered)
    types = dict(complete["available_node_types"])
    types[FAKE_HEAD_NODE_TYPE] = types.pop(complete["head_node_type"])
    provider = {
        # By its name as a class: Ray's wheel lacks a file that it reads for `type: fake_multinode`.
        "type": "external",
        "module": "tests.autoscaling.fake_provider.FakeProvider",
        "disable_node_updaters": True,
        "gcs_address": gcs,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "launch_multiple": True,
    }
    return {
        **complete,
        "provider": provider,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": types,
        "idle_timeout_minutes": IDLE_MINUTES,
    }


def pools() -> Counter[str]:
    """Living nodes by pool."""
    return Counter(
        name.removeprefix("pool:")
        for node in ray.nodes()
        if node["Alive"]
        for name in node["Resources"]
        if name.startswith("pool:")
    )


def until(reached: Callable[[], bool], what: str, timeout_s: float = 60) -> float:
    """Seconds that it took."""
    started = time.monotonic()
    while not reached():
        assert time.monotonic() - started < timeout_s, f"not {what} after {timeout_s:g} s, but {dict(pools())}"
        time.sleep(0.1)
    return time.monotonic() - started
