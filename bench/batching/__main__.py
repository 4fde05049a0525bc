"""`python -m bench.batching`: one program at batch 1 and in batches, under the same load, on one CPU each."""

import argparse
import asyncio
import json
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from bench.batching.program import FEATURES, pushed
from bench.batching.stage import BEARER, SITE, Placed, running
from bench.goals import Goal
from bench.report import conclude, print_table
from clusters.storage import StoreSpec

ALONE, BATCHED = "alone", "batched"
WARM_S = 2.0
TIMEOUT_S = 60.0
GAIN = 2.0
"""What batches are worth at least. On a GPU, where a row alone leaves most of the card idle, it is far more."""


def main() -> int:
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp") as scratch:
        directory = Path(scratch)
        store = StoreSpec(url=(directory / "store").as_uri())
        (directory / "store").mkdir()
        placed = {
            ALONE: Placed(pushed(ALONE, SITE, store), 1),
            BATCHED: Placed(pushed(BATCHED, SITE, store), args.rows, args.wait_ms),
        }
        with running(placed, directory) as fleet:
            endpoint = fleet.sites[0].endpoint
            figures = {name: asyncio.run(_load(endpoint, name, args.clients, args.seconds)) for name in placed}
    print_table(
        f"One row per request, {args.clients} clients, one CPU",
        ("batch", "requests/s", "median ms", "p99 ms"),
        [
            (name, str(placed[name].max_rows), f"{each['per_s']:.1f}", f"{each['p50_ms']:.1f}", f"{each['p99_ms']:.1f}")
            for name, each in figures.items()
        ],
    )
    goals = [Goal("throughput batched / alone", figures[BATCHED]["per_s"] / figures[ALONE]["per_s"], GAIN, False)]
    conclude("batching", goals, figures, args.json)
    return int(args.strict and any(goal.missed for goal in goals))


async def _load(endpoint: str, model: str, clients: int, seconds: float) -> dict[str, float]:
    """Each client asks again as soon as it was answered. The first seconds are not counted."""
    url = f"{endpoint}/models/{model}/v2/models/{model}/infer"
    taken: list[float] = []
    begin = time.monotonic() + WARM_S
    end = begin + seconds
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients), timeout=timeout) as session:
        await asyncio.gather(*(_client(session, url, begin, end, taken) for _ in range(clients)))
    cuts = statistics.quantiles(taken, n=100)
    return {"per_s": len(taken) / seconds, "p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}


async def _client(session: aiohttp.ClientSession, url: str, begin: float, end: float, taken: list[float]) -> None:
    body, headers = _request()
    while (asked := time.monotonic()) < end:
        async with session.post(url, data=body, headers=headers) as answer:
            content = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the site answers {answer.status}: {content[:200]!r}")
        answered = time.monotonic()
        if begin <= answered <= end:
            taken.append(answered - asked)


def _request() -> tuple[bytes, dict[str, str]]:
    row = struct.pack(f"<{FEATURES}f", *(number / FEATURES for number in range(FEATURES)))
    tensor: dict[str, Any] = {"name": "features", "datatype": "FP32", "shape": [1, FEATURES]}
    tensor["parameters"] = {"binary_data_size": len(row)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = {"inference-header-content-length": str(len(head))}
    return head + row, {"authorization": f"Bearer {BEARER}", **length}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.batching", description=__doc__)
    parser.add_argument("--rows", type=int, default=32, help="rows of a batch")
    parser.add_argument("--wait-ms", type=float, default=5, help="that a batch may wait to fill")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15, help="measured, of each")
    parser.add_argument("--strict", action="store_true", help="fail on a missed goal")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
