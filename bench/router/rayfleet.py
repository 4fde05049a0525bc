"""rayfleet as its users run it: a Ray cluster of its own, `serve deploy`, one ingress replica, and a key to enter."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import psutil

from bench.router.engine import HOST, RELEASE, site_name
from bench.router.machine import move, on_core
from bench.router.probe import answers
from bench.router.requests import Target
from bench.router.stage import Running, Stage
from bench.router.wire import MODEL
from clusters.launch import local
from clusters.launch.local import INGRESS, LocalFleet
from clusters.launch.ports import free_blocks
from clusters.launch.processes import LaunchError, end, find, log_tail
from clusters.launch.ray_head import RayHead
from clusters.render import ingress_config, to_yaml
from clusters.spec import FleetSpec

ANSWER_TIMEOUT_S = 60
REPLICA = "ServeReplica:"


@contextmanager
def rayfleet(stage: Stage) -> Iterator[Running]:
    key = f"sk-{secrets.token_urlsafe(32)}"
    try:
        fleet = _plan(stage, key)
        with on_core(stage.cores.load):
            local.start_cluster(fleet, INGRESS)
            local.deploy(fleet, INGRESS)
            local.wait_running(fleet, INGRESS, lambda _: None)
        target = Target(fleet.fleet.ingress.port, key)
        _wait_for_answers(fleet, target)
        replica, rest = _replica_and_rest(fleet)
        move(replica, stage.cores.contender)
        yield Running(target, [replica], rest)
    finally:
        end(stage.run.id, INGRESS)


def _plan(stage: Stage, key: str) -> LocalFleet:
    """The ingress of a fleet whose sites are the engines, with its config written."""
    clients, rays = free_blocks(2)
    fleet = FleetSpec.model_validate(_fleet(stage, clients.base, rays.serve, key))
    tokens = {site.token_variable: secrets.token_urlsafe(32) for site in fleet.sites}
    head = RayHead(
        INGRESS, rays, stage.sockets / INGRESS, secrets.token_urlsafe(32), cpus=2, gpus=0, resources={}, environ=tokens
    )
    planned = LocalFleet(stage.run, fleet, {INGRESS: head}, {}, key, stage.sockets)
    config = planned.config(INGRESS)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(to_yaml(ingress_config(fleet, HOST), "The ingress as it is measured."))
    return planned


def _fleet(stage: Stage, port: int, serve_port: int, key: str) -> dict[str, Any]:
    """Everything on that a fleet would have on: a key, the request log, and what is on by default."""
    names = {site_name(engine): f"http://{HOST}:{engine}" for engine in stage.engines}
    pool = {"name": "pool", "instance_type": "fake", "gpus": 8, "usd_per_hour": 10}
    common = {
        "provider": "onprem",
        "region": "here",
        "jurisdiction": "us",
        "store": {"url": "file:///nowhere"},
        "machines": {"head": HOST},
        "pools": [pool],
    }
    return {
        "name": "bench",
        "sites": [{"name": name, "endpoint": endpoint, **common} for name, endpoint in names.items()],
        "models": [
            {"name": MODEL, "source": "nowhere", "release": RELEASE, "tasks": ["chat"], "max_model_len": 131_072}
        ],
        "placements": [
            {"model": MODEL, "site": name, "pool": "pool", "batching": {"max_num_seqs": 4096}} for name in names
        ],
        "weights": {"home": next(iter(names))},
        "ingress": {
            "machines": {"head": HOST},
            "port": port,
            "serve_port": serve_port,
            "request_log": str(stage.run.directory / "requests"),
        },
        "keys": [{"name": "bench", "sha256": sha256(key.encode()).hexdigest()}],
    }


def _wait_for_answers(fleet: LocalFleet, target: Target) -> None:
    """Raises LaunchError."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not answers(target):
        if time.monotonic() > deadline:
            raise LaunchError(f"the ingress does not answer\n{log_tail(fleet.run.log(INGRESS))}")
        time.sleep(0.5)


def _replica_and_rest(fleet: LocalFleet) -> tuple[psutil.Process, list[psutil.Process]]:
    """The ingress's one replica, and all other processes of its Ray cluster. Raises LaunchError."""
    processes = find(fleet.run.id, INGRESS)
    replicas = [one for one in processes if any(REPLICA in word and "Ingress" in word for word in one.cmdline())]
    if len(replicas) != 1:
        raise LaunchError(f"{len(replicas)} ingress replicas, not one")
    return replicas[0], [one for one in processes if one != replicas[0]]
