"""A placement of tensors on a real Ray cluster, by the site's own Serve applications: from the store to the answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import torch

from bench.batching.stage import BEARER, Placed, running
from clusters.launch.processes import free_port
from tests.serve_app.tensors.programs import FEATURES, classifier
from tests.serve_app.waiting import wait_for
from tests.weights.making import directory, published

MODEL = "classifier"
INFER = f"/models/{MODEL}/v2/models/{MODEL}/infer"
CLIENTS = 12
MAX_ROWS = 8
PORTS = 8

pytestmark = pytest.mark.timeout(360)


@pytest.fixture(scope="module")
def ports() -> Iterator[range]:
    """Where replicas listen themselves, as they do behind HAProxy."""
    first = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_SERVE_ENABLE_DIRECT_INGRESS", "1")
        patch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", str(first))
        patch.setenv("RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT", str(first + PORTS))
        patch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "0")
        yield range(first, first + PORTS)


@pytest.fixture(scope="module")
def endpoint(classifier_directory: Path, ports: range) -> Iterator[str]:
    # Ray puts Unix sockets below it, whose paths must be short.
    with TemporaryDirectory(prefix="rf-", dir="/tmp") as scratch:
        files = {path.name: path.read_bytes() for path in classifier_directory.iterdir()}
        release = published(directory(Path(scratch, "store")), files, MODEL).release
        with running({MODEL: Placed(release, max_rows=MAX_ROWS, max_wait_ms=3000)}, Path(scratch)) as fleet:
            yield fleet.sites[0].endpoint


def request_of(row: torch.Tensor) -> dict[str, Any]:
    return {"inputs": [{"name": "features", "datatype": "FP32", "shape": list(row.shape), "data": row.tolist()}]}


async def asked(endpoint: str, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    headers = {"authorization": f"Bearer {BEARER}"}
    async with httpx.AsyncClient(base_url=endpoint, headers=headers, timeout=60, verify=False) as client:
        answers = await asyncio.gather(*(client.post(INFER, json=request_of(row)) for row in rows))
    outputs = [answer.raise_for_status().json()["outputs"][0] for answer in answers]
    return [torch.tensor(output["data"]).reshape(output["shape"]) for output in outputs]


def placement(endpoint: str) -> Any:
    state = httpx.get(f"{endpoint}/fleet/state", headers={"authorization": f"Bearer {BEARER}"}, verify=False)
    (told,) = state.json()["placements"]
    return told


async def test_requests_at_once_are_batched_and_right_and_reported(endpoint: str) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(1, FEATURES, generator=generator) for _ in range(CLIENTS)]
    asking = asyncio.create_task(asked(endpoint, rows))
    wait = asyncio.to_thread(wait_for, lambda: (placement(endpoint)["waiting"] or 0) > 0, 30)
    answers, _ = await asyncio.gather(asking, wait)
    with torch.inference_mode():
        for row, answer in zip(rows, answers, strict=True):
            torch.testing.assert_close(answer, classifier()(row))


def test_the_site_says_that_it_is_ready_and_what_it_can_take(endpoint: str) -> None:
    told = placement(endpoint)
    assert (told["readiness"], told["replicas"], told["capacity"]) == ("ready", 1, MAX_ROWS)


def test_nothing_is_answered_without_the_sites_token(endpoint: str) -> None:
    assert httpx.post(f"{endpoint}{INFER}", content=b"{}", verify=False).status_code == 401


async def test_a_replica_whose_queue_is_full_refuses_and_answers_what_it_has_taken(endpoint: str, ports: range) -> None:
    body = json.dumps(request_of(torch.ones(1, FEATURES))).encode()
    begun = asyncio.Semaphore(0)
    go = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:1]
        begun.release()
        await go.wait()
        yield body[1:]

    held, more = 10 * MAX_ROWS, 20 * MAX_ROWS
    headers = {"authorization": f"Bearer {BEARER}"}
    limits = httpx.Limits(max_connections=held + more)
    async with httpx.AsyncClient(base_url=replica(ports), headers=headers, timeout=120, limits=limits) as client:
        taken = [asyncio.create_task(client.post(INFER, content=slowly())) for _ in range(held)]
        for _ in range(held):
            await begun.acquire()
        queued = [asyncio.create_task(client.post(INFER, content=body)) for _ in range(more)]
        async with asyncio.timeout(60):
            while not any(asked.done() and asked.result().status_code == 429 for asked in queued):
                await asyncio.wait([asked for asked in queued if not asked.done()], return_when="FIRST_COMPLETED")
        assert not any(asked.done() for asked in taken)
        go.set()
        answers = await asyncio.gather(*taken, *queued)
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= held


def replica(ports: range) -> str:
    """The address of the model's replica itself."""
    for port in ports:
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/models/{MODEL}/v2", headers={"authorization": f"Bearer {BEARER}"}
            )
        except httpx.ConnectError:
            continue
        if answer.status_code == 200:
            return f"http://127.0.0.1:{port}"
    raise AssertionError(f"no replica listens on {ports}")
