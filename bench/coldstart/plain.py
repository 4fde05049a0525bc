"""The limit: vLLM's own server on a directory, with the same arguments."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.coldstart.asking import Target, ask_until_answered, steady_s
from bench.coldstart.figures import Start, own_words
from bench.coldstart.stage import MODEL, START_TIMEOUT_S, Stage
from clusters.accelerators import CPU_KV_CACHE_BYTES
from clusters.launch.local import CPU_ENGINE
from clusters.launch.processes import Run, clean_environment, end, free_port, spawn

NAME = "vllm-serve"
HOST = "127.0.0.1"
NO_PLUGINS = {"VLLM_PLUGINS": ""}
"""Else vLLM finds our own here, and imports Ray with it."""


def start(stage: Stage) -> Start:
    """Raises NoAnswer."""
    wanted_at = time.time()
    with _serving(stage) as (run, target):
        first = ask_until_answered(target, START_TIMEOUT_S)
        steady = steady_s(target)
        said = own_words([run.log(NAME)])
    return Start(first.first_token_at - wanted_at, first.seconds, steady, {"first request": first.seconds}, said)


@contextmanager
def _serving(stage: Stage) -> Iterator[tuple[Run, Target]]:
    run = Run.new(stage.directory / "plain")
    run.log(NAME).unlink(missing_ok=True)
    port = free_port(HOST)
    try:
        spawn(run, NAME, command(stage, port), {**clean_environment(), **CPU_ENGINE, **NO_PLUGINS}, cwd=stage.directory)
        yield run, Target(f"http://{HOST}:{port}", MODEL)
    finally:
        end(run.id)


def command(stage: Stage, port: int) -> list[str]:
    batching = stage.placement.batching
    options = {
        "model": str(stage.source),
        "served-model-name": MODEL,
        "host": HOST,
        "port": port,
        "max-model-len": stage.model.max_model_len,
        "max-num-seqs": batching.max_num_seqs,
        "max-num-batched-tokens": batching.max_num_batched_tokens,
        "kv-cache-memory-bytes": CPU_KV_CACHE_BYTES,
    }
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *given, "--enforce-eager"]
