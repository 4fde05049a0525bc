"""One Ray cluster of one node on this machine: its command line, its environment, and `serve deploy` against it."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.launch.ports import PortBlock
from clusters.launch.processes import LaunchError, Run, clean_environment, end, log_tail, spawn, wait_until

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 120
START_ATTEMPTS = 2
"""A Ray node gives up when it has not started within 30 s, which happens on a machine that is busy just then."""
DEPLOY_TIMEOUT_S = 120


@dataclass(frozen=True)
class RayHead:
    """`temp_dir` must be short: Ray puts Unix sockets below it. `environ` is what its workers should find."""

    name: str
    ports: PortBlock
    temp_dir: Path
    token: str
    cpus: float
    gpus: float
    resources: Mapping[str, float]
    environ: Mapping[str, str]

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.ports.dashboard}"

    @property
    def gcs_address(self) -> str:
        return f"127.0.0.1:{self.ports.gcs}"


def start(run: Run, head: RayHead) -> None:
    """Returns once the dashboard answers. Raises LaunchError."""
    for attempt in range(1, START_ATTEMPTS + 1):
        _scratch(head).mkdir(parents=True, exist_ok=True)
        try:
            process = spawn(run, head.name, _command(head), environment(head))
            wait_until(run, head.name, lambda: _is_up(head), process, START_TIMEOUT_S)
        except LaunchError:
            stop(run, head, grace_s=0)
            if attempt == START_ATTEMPTS:
                raise
        else:
            return


def stop(run: Run, head: RayHead, grace_s: float) -> int:
    """End every process of the cluster and remove its temp dir. Returns how many processes there were."""
    ended = end(run.id, head.name, grace_s)
    shutil.rmtree(head.temp_dir, ignore_errors=True)
    return ended


def deploy(run: Run, head: RayHead, config: Path) -> None:
    """`serve deploy config.yaml`, as a person would type it. Raises LaunchError with what it printed."""
    with run.log(f"{head.name}-deploy").open("ab") as log:
        try:
            subprocess.run(
                [str(BIN / "serve"), "deploy", "--address", head.dashboard, str(config)],
                env=environment(head),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=DEPLOY_TIMEOUT_S,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            how = "failed" if isinstance(error, subprocess.CalledProcessError) else f"took over {DEPLOY_TIMEOUT_S:g} s"
            printed = log_tail(run.log(f"{head.name}-deploy"))
            raise LaunchError(f"serve deploy {config} {how} at {head.name}\n{printed}") from error


def applications(head: RayHead) -> dict[str, Any]:
    """Serve's applications by name, each with `status` and `message`, from the cluster's dashboard.

    Empty when it does not answer in time, as happens while engines load on few cores.
    """
    try:
        details: dict[str, Any] = json.loads(_get(head, "/api/serve/applications/"))
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return {}
    applications: dict[str, Any] = details.get("applications", {})
    return applications


def environment(head: RayHead) -> dict[str, str]:
    """Of the Ray node, and of a person's `ray` and `serve` commands against it."""
    first_http, last_http = head.ports.replica_http
    first_grpc, last_grpc = head.ports.replica_grpc
    haproxy = head.temp_dir / "h"
    return clean_environment() | {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "TMPDIR": str(_scratch(head)),
        "RAY_ADDRESS": head.gcs_address,
        "RAY_DASHBOARD_ADDRESS": head.dashboard,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": head.token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(head.ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(head.ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first_http),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last_http),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(last_grpc),
        **head.environ,
    }


def _scratch(head: RayHead) -> Path:
    """Where engines put their sockets and scratch files, so that they go with the cluster."""
    return head.temp_dir / "t"


def _command(head: RayHead) -> list[str]:
    first_worker, last_worker = head.ports.workers
    return [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        f"--port={head.ports.gcs}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={head.ports.dashboard}",
        f"--dashboard-agent-listen-port={head.ports.agent_http}",
        f"--dashboard-agent-grpc-port={head.ports.agent_grpc}",
        f"--runtime-env-agent-port={head.ports.runtime_env_agent}",
        f"--metrics-export-port={head.ports.metrics}",
        f"--ray-client-server-port={head.ports.client}",
        f"--node-manager-port={head.ports.node_manager}",
        f"--object-manager-port={head.ports.object_manager}",
        f"--min-worker-port={first_worker}",
        f"--max-worker-port={last_worker}",
        f"--temp-dir={head.temp_dir}",
        f"--num-cpus={head.cpus:g}",
        f"--num-gpus={head.gpus:g}",
        f"--resources={json.dumps(dict(head.resources))}",
        f"--object-store-memory={128 * 2**20}",
        "--disable-usage-stats",
    ]


def _is_up(head: RayHead) -> bool:
    """The dashboard may answer before the node has registered; `ray start` leaves this file once it has."""
    if not (head.temp_dir / "ray_current_cluster").exists():
        return False
    try:
        _get(head, "/api/version")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


def _get(head: RayHead, path: str) -> bytes:
    request = urllib.request.Request(head.dashboard + path, headers={"Authorization": f"Bearer {head.token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read(8 * 2**20)
        return body
