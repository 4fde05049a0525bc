"""What a site answers to the Open Inference Protocol, by its own application."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch

from serve_app.tensors.program import Program
from serve_app.tensors.site_app import TensorRoutes
from tests.serve_app.tensors.batchers import kept
from tests.serve_app.tensors.programs import CLASSIFIER_TENSORS, FEATURES, RERANKER_TENSORS, VOCABULARY, classifier
from tests.serve_app.tensors.sites import MAX_ROWS, RELEASE, TOKEN, TensorSite

INFER = "/models/classifier/v2/models/classifier/infer"
RERANK = "/models/reranker/v2/models/reranker/infer"


@pytest.fixture
def site(tensor_site: TensorSite) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=tensor_site.endpoint, headers=headers, timeout=60, verify=False) as client:
        yield client


def features(rows: int) -> torch.Tensor:
    return torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(rows))


def request_of(tensor: torch.Tensor, **fields: Any) -> dict[str, Any]:
    named = {"name": "features", "datatype": "FP32", "shape": list(tensor.shape)}
    return {"inputs": [{**named, "data": tensor.flatten().tolist()}], **fields}


@pytest.mark.parametrize("path", [INFER, f"/models/classifier/v2/models/classifier/versions/{RELEASE}/infer"])
@pytest.mark.parametrize("rows", [1, MAX_ROWS, 3 * MAX_ROWS + 1])
def test_it_infers_as_the_module_does(site: httpx.Client, path: str, rows: int) -> None:
    given = features(rows)
    answer = site.post(path, json=request_of(given, id="mine")).raise_for_status().json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("classifier", RELEASE, "mine")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [rows, 3])
    with torch.inference_mode():
        torch.testing.assert_close(torch.tensor(output["data"]).reshape(rows, 3), classifier()(given))


def test_it_tells_of_the_model_and_of_itself(site: httpx.Client) -> None:
    base = "/models/classifier/v2"
    assert site.get(f"{base}/models/classifier").json() == {
        "name": "classifier",
        "versions": [RELEASE],
        "platform": "pytorch_export",
        **CLASSIFIER_TENSORS,
    }
    assert site.get(f"{base}/models/classifier/ready").json() == {"name": "classifier", "ready": True}
    assert site.get(f"{base}/health/live").json() == {"live": True}
    assert site.get(f"{base}/health/ready").json() == {"ready": True}
    assert site.get(base).json()["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", INFER, b"{", 400, "not as the Open Inference Protocol has it"),
        ("POST", INFER, b'{"inputs": []}', 400, "length >= 1"),
        ("POST", INFER.replace("/infer", "/versions/1/infer"), b"{}", 404, "'classifier 1' does not exist"),
        ("POST", "/models/classifier/v2/models/other/infer", b"{}", 404, "'other' does not exist"),
        ("GET", "/models/classifier/v2/nothing", None, 404, "Unknown URL"),
        ("GET", INFER, None, 405, "GET is not allowed"),
    ],
)
def test_errors_have_the_protocols_shape(
    site: httpx.Client, method: str, path: str, body: bytes | None, status: int, message: str
) -> None:
    answer = site.request(method, path, content=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


def test_rows_that_are_too_many_for_one_request_are_refused(site: httpx.Client) -> None:
    answer = site.post(INFER, json=request_of(features(64 * MAX_ROWS + 1)))
    assert answer.status_code == 400
    assert f"send at most {64 * MAX_ROWS}" in answer.json()["error"]


def test_an_input_that_the_program_fails_on_is_the_clients_mistake(site: httpx.Client) -> None:
    answer = site.post(RERANK, json=reranking(query=0, document=VOCABULARY))
    assert answer.status_code == 400
    assert "index out of range" in answer.json()["error"]


def test_a_value_outside_of_its_bounds_never_gets_to_the_program(site: httpx.Client) -> None:
    answer = site.post(RERANK, json=reranking(query=VOCABULARY, document=0))
    assert answer.status_code == 400
    assert answer.json()["error"] == f"The input 'query' holds {VOCABULARY}, and its maximum is {VOCABULARY - 1}."


def test_bounds_are_told_with_the_shapes(site: httpx.Client) -> None:
    assert site.get("/models/reranker/v2/models/reranker").json()["inputs"] == RERANKER_TENSORS["inputs"]


def reranking(**words: int) -> dict[str, Any]:
    return {
        "inputs": [{"name": name, "datatype": "INT64", "shape": [1, 1], "data": [word]} for name, word in words.items()]
    }


class Noting(ThreadPoolExecutor):
    """What an event loop has others do."""

    asked = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.asked += 1
        return super().submit(*args, **kwargs)


@pytest.mark.parametrize(("rows", "aside"), [(10, 0), (30_000, 2)])
async def test_long_requests_and_answers_do_not_hold_up_the_loop(
    classifier_program: Program, rows: int, aside: int
) -> None:
    batcher = kept(classifier_program, max_rows=1024, wait_s=0)
    app = TensorRoutes("classifier", RELEASE, classifier_program.signature, batcher, 1024).app()
    asyncio.get_running_loop().set_default_executor(executor := Noting())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://site", timeout=60) as client:
        answer = await client.post("/v2/models/classifier/infer", json=request_of(torch.ones(rows, FEATURES)))
    assert answer.raise_for_status().json()["outputs"][0]["shape"] == [rows, 3]
    assert executor.asked == aside


def test_nobody_is_answered_without_the_sites_token(tensor_site: TensorSite) -> None:
    for path in (INFER, "/models/classifier/v2", "/models/classifier/v2/health/live"):
        assert httpx.get(f"{tensor_site.endpoint}{path}").status_code == 401
