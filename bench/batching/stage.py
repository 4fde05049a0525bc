"""A site in a process of its own, with the same program once alone and once in batches."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, cast

from clusters.launch.processes import free_port
from clusters.spec import FleetSpec

SITE = "here"
VARIABLE = "RAYFLEET_TOKEN_HERE"
BEARER = "not-a-secret"
START_TIMEOUT_S = 300


@dataclass(frozen=True)
class Placed:
    """A release of a model at the site, in batches of so many rows."""

    release: str
    max_rows: int
    max_wait_ms: float | None = None


def fleet_of(placed: Mapping[str, Placed], directory: Path, endpoint: str) -> FleetSpec:
    """One site on the CPU, with its store and cache below `directory`."""
    return FleetSpec.model_validate(
        {
            "name": "bench",
            "sites": [
                {
                    "name": SITE,
                    "provider": "onprem",
                    "region": "here",
                    "jurisdiction": "ch",
                    "endpoint": endpoint,
                    "store": {"url": (directory / "store").as_uri()},
                    "machines": {"head": "x"},
                    "pools": [{"name": "cpu", "instance_type": "x", "cpus": 8, "usd_per_hour": 1}],
                }
            ],
            "models": [
                {"name": name, "source": "x", "release": each.release, "tasks": ["infer"]}
                for name, each in placed.items()
            ],
            "placements": [
                {
                    "model": name,
                    "site": SITE,
                    "pool": "cpu",
                    "gpus": 0,
                    "cpus": 1,
                    "batching": {"max_num_seqs": each.max_rows, "max_wait_ms": each.max_wait_ms},
                }
                for name, each in placed.items()
            ],
            "weights": {"home": SITE, "cache_dir": str(directory / "cache")},
            "ingress": {"machines": {"head": "x"}},
        }
    )


@contextmanager
def running(placed: Mapping[str, Placed], directory: Path) -> Iterator[FleetSpec]:
    """The fleet, once its site answers. Its Ray cluster ends with it."""
    port = free_port()
    fleet = fleet_of(placed, directory, f"http://127.0.0.1:{port}")
    told = [fleet.model_dump_json(exclude_none=True), str(port), str(directory / "ray")]
    with (directory / "site.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.batching.site", *told],
            env={**os.environ, VARIABLE: BEARER, "RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    impatience = Timer(START_TIMEOUT_S, process.kill)
    impatience.start()
    try:
        if not any(line.strip() == b"serving" for line in cast(IO[bytes], process.stdout)):
            raise RuntimeError(f"the site did not start: {(directory / 'site.log').read_text()[-4000:]}")
        impatience.cancel()
        yield fleet
    finally:
        impatience.cancel()
        process.communicate(timeout=START_TIMEOUT_S)
