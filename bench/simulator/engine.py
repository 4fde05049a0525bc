"""The real engine: vLLM on one core, as a placement on CPUs runs it, but for its HTTP server."""

import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.router.machine import Cores, move
from bench.usage import Usage as Used
from clusters.batching import BatchingSpec
from clusters.launch.local import CPU_ENGINE
from clusters.launch.processes import Run, clean_environment, end, free_port, spawn, wait_until
from serve_app.cli.endpoint import Endpoint

MODEL = "demo-chat"
WEIGHTS = Path(__file__).parents[2] / "weights" / "demo" / "chat"
MAX_MODEL_LEN = 1024
KV_CACHE_BYTES = 128 * 2**20
"""As `serve_app.engine` gives to engines on CPUs."""
BATCHING = BatchingSpec(max_num_seqs=16, max_num_batched_tokens=2048)
HOST = "127.0.0.1"
START_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Running:
    endpoint: Endpoint
    cores: Cores
    processes: tuple[psutil.Process, ...]
    """The engine's, and this one."""

    @property
    def metrics(self) -> str:
        return f"{self.endpoint.url}/metrics"

    def waited(self) -> "Waited":
        with urllib.request.urlopen(self.metrics, timeout=5) as answer:  # noqa: S310
            text = answer.read().decode()
        sums = re.findall(r"^vllm:request_(?:queue|prefill)_time_seconds_sum\{.*\} (\S+)", text, re.MULTILINE)
        (count,) = re.findall(r"^vllm:request_prefill_time_seconds_count\{.*\} (\S+)", text, re.MULTILINE)
        return Waited(sum(map(float, sums)), float(count))

    def usage(self) -> "Usage":
        every = psutil.cpu_times(percpu=True)
        busy = [every[core] for core in (self.cores.contender, self.cores.load)]
        return Usage(
            at=time.monotonic(),
            busy_s=sum(sum(each) - each.idle - each.iowait for each in busy),
            own_s=Used.of(self.processes).cpu_s,
        )


@dataclass(frozen=True, slots=True)
class Waited:
    """By the engine's own clock, from a request's arrival in the scheduler to its first token, since it started: what
    HTTP and the client take is not in it."""

    seconds: float
    requests: float

    def mean_s(self, before: "Waited") -> float:
        """Of the requests since then."""
        return (self.seconds - before.seconds) / (self.requests - before.requests)


@dataclass(frozen=True, slots=True)
class Usage:
    """Of both cores, in CPU seconds since the machine and the processes started."""

    at: float
    busy_s: float
    own_s: float

    def others(self, before: "Usage") -> float:
        """Cores that somebody else had since then: 0 on a quiet machine."""
        return max(0.0, (self.busy_s - before.busy_s - self.own_s + before.own_s) / (self.at - before.at))


@contextmanager
def engine(directory: Path, cores: Cores) -> Iterator[Running]:
    """Its steps have a core to themselves. What speaks HTTP is beside the load: at a GPU it has a core of its own too.
    Raises LaunchError."""
    run = Run.new(directory)
    port = free_port(HOST)
    url = f"http://{HOST}:{port}"
    try:
        process = spawn(run, "engine", _command(port), {**clean_environment(), **CPU_ENGINE}, cwd=directory)
        wait_until(run, "engine", lambda: _answers(url), process, START_TIMEOUT_S)
        server = psutil.Process(process.pid)
        steps = tuple(server.children(recursive=True))
        move(server, cores.load)
        for each in steps:
            move(each, cores.contender)
        yield Running(Endpoint(url, key=""), cores, (psutil.Process(), server, *steps))
    finally:
        end(run.id)


def _command(port: int) -> list[str]:
    options = {
        "model": str(WEIGHTS),
        "served-model-name": MODEL,
        "host": HOST,
        "port": str(port),
        "max-model-len": str(MAX_MODEL_LEN),
        "max-num-seqs": str(BATCHING.max_num_seqs),
        "max-num-batched-tokens": str(BATCHING.max_num_batched_tokens),
        "kv-cache-memory-bytes": str(KV_CACHE_BYTES),
    }
    flags = ["--enforce-eager", "--disable-uvicorn-access-log"]
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
        *flags,
    ]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False
