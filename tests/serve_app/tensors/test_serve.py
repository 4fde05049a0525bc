"""A placement of tensors on a real Ray cluster, by the site's own Serve applications: from the store to the answer."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import torch

from bench.batching.stage import BEARER, Placed, running
from tests.serve_app.tensors.programs import FEATURES, classifier
from tests.serve_app.waiting import wait_for
from tests.weights.making import directory, published

MODEL = "classifier"
INFER = f"/models/{MODEL}/v2/models/{MODEL}/infer"
CLIENTS = 12

pytestmark = pytest.mark.timeout(360)


@pytest.fixture(scope="module")
def endpoint(classifier_directory: Path) -> Iterator[str]:
    # Ray puts Unix sockets below it, whose paths must be short.
    with TemporaryDirectory(prefix="rf-", dir="/tmp") as scratch:
        files = {path.name: path.read_bytes() for path in classifier_directory.iterdir()}
        release = published(directory(Path(scratch, "store")), files, MODEL).release
        with running({MODEL: Placed(release, max_rows=8, max_wait_ms=3000)}, Path(scratch)) as fleet:
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
    assert (told["readiness"], told["replicas"], told["capacity"]) == ("ready", 1, 8)


def test_nothing_is_answered_without_the_sites_token(endpoint: str) -> None:
    assert httpx.post(f"{endpoint}{INFER}", content=b"{}", verify=False).status_code == 401
