"""The Open Inference Protocol through the ingress: routed, retried, refused and counted as any request."""

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import torch

from clusters.launch.processes import free_port
from clusters.spec import FleetSpec
from tests.serve_app.asking import metric
from tests.serve_app.conftest import KEY, Endpoint, serving
from tests.serve_app.tensors.programs import CLASSIFIER_TENSORS, FEATURES, classifier
from tests.serve_app.tensors.sites import RELEASE, TensorSite
from tests.serve_app.waiting import wait_for

NARROW = "sk-narrow"
INFER = "/v2/models/classifier/infer"


def fleet(sites: list[TensorSite]) -> FleetSpec:
    """The classifier everywhere, the reranker in Switzerland only, and a model of words beside them."""
    base = {"source": "x", "release": RELEASE}
    pool = {"name": "pool", "instance_type": "x", "gpus": 1, "usd_per_hour": 3.6}
    models: list[dict[str, Any]] = [
        {**base, "name": "classifier", "tasks": ["infer"]},
        {**base, "name": "reranker", "tasks": ["infer"], "jurisdictions": ["ch"]},
        {**base, "name": "chat", "tasks": ["chat"], "max_model_len": 4096},
    ]
    return FleetSpec.model_validate(
        {
            "name": "test",
            "sites": [
                {
                    "name": site.name,
                    "provider": "onprem",
                    "region": "here",
                    "jurisdiction": jurisdiction,
                    "endpoint": site.endpoint,
                    "store": {"url": "file:///nowhere"},
                    "machines": {"head": "x"},
                    "pools": [pool],
                }
                for site, jurisdiction in zip(sites, ("ch", "us"), strict=True)
            ],
            "models": models,
            "placements": [
                {
                    "model": model["name"],
                    "site": site.name,
                    "pool": "pool",
                    "gpus": 0.25,
                    "batching": {"max_num_seqs": 8},
                }
                for site in sites
                for model in models
            ],
            "weights": {"home": sites[0].name},
            "ingress": {"machines": {"head": "x"}, "port": free_port(), "drain_s": 0.1, "max_body_bytes": 2**20},
            "routing": {"poll_interval_s": 0.05, "health": {"consecutive_errors": 10**6, "success_rate": 0}},
            "keys": [
                {"name": "test", "sha256": digest(KEY), "operator": True},
                {"name": "narrow", "sha256": digest(NARROW), "models": ["chat"]},
            ],
        }
    )


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(scope="module")
def gateway(tensor_site: TensorSite, other_site: TensorSite) -> Iterator[Endpoint]:
    with serving(fleet([tensor_site, other_site])) as running:
        wait_for(lambda: ask(running).get("/v2/models/classifier/ready").status_code == 200)
        yield running


@pytest.fixture(params=["client port", "Serve's route"])
def endpoint(
    gateway: Endpoint, tensor_site: TensorSite, other_site: TensorSite, request: pytest.FixtureRequest
) -> Iterator[Endpoint]:
    yield gateway if request.param == "client port" else replace(gateway, port=gateway.serve_port)
    for site in (tensor_site, other_site):
        site.failing.clear()
        site.asked.clear()


@dataclass(frozen=True)
class Asking:
    """Each request on a connection of its own."""

    url: str
    headers: dict[str, str]

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, headers=headers, **options)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        sent = {**self.headers, **(headers or {})}
        return httpx.request(method, f"{self.url}{path}", headers=sent, timeout=60, verify=False, **options)


def ask(endpoint: Endpoint, key: str = KEY, **headers: str) -> Asking:
    return Asking(endpoint.url, {"authorization": f"Bearer {key}", **headers})


def features(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(rows))


def request_of(tensor: torch.Tensor) -> dict[str, Any]:
    named = {"name": "features", "datatype": "FP32", "shape": list(tensor.shape)}
    return {"inputs": [{**named, "data": tensor.tolist()}], "id": "mine"}


def assert_right(answer: httpx.Response, given: torch.Tensor) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "mine"
    with torch.inference_mode():
        expected = classifier()(given)
    torch.testing.assert_close(torch.tensor(answer.json()["outputs"][0]["data"]).reshape(expected.shape), expected)


@pytest.mark.parametrize("path", [INFER, f"/v2/models/classifier/versions/{RELEASE}/infer"])
def test_tensors_go_through(endpoint: Endpoint, path: str) -> None:
    answer = ask(endpoint).post(path, json=request_of(features()))
    assert_right(answer, features())
    assert answer.headers["x-rayfleet-site"] in ("east", "west")


def test_binary_tensors_go_through(endpoint: Endpoint) -> None:
    given = features(2)
    data = struct.pack(f"<{given.numel()}f", *given.flatten().tolist())
    named = {"name": "features", "datatype": "FP32", "shape": [2, FEATURES]}
    head = json.dumps(
        {
            "inputs": [{**named, "parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    answer = ask(endpoint).post(INFER, content=head + data, headers=headers)
    told = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:told])["outputs"]
    values = struct.unpack("<6f", answer.content[told:])
    assert output["parameters"] == {"binary_data_size": 24}
    with torch.inference_mode():
        torch.testing.assert_close(torch.tensor(values).reshape(2, 3), classifier()(given))


def test_what_fails_at_one_site_is_answered_by_another(
    endpoint: Endpoint, tensor_site: TensorSite, other_site: TensorSite
) -> None:
    for site in (tensor_site, other_site):
        site.failing.append(500)
    first = ask(endpoint).post(INFER, json=request_of(features()))
    assert (first.status_code, first.headers["x-rayfleet-attempts"]) == (502, "2")
    assert list(first.json()) == ["error"]
    tensor_site.failing.append(503)
    other = ask(endpoint, **{"x-rayfleet-site-only": "west"}).post(INFER, json=request_of(features()))
    assert_right(other, features())
    tensor_site.failing.clear()


def test_a_model_stays_where_it_may_be_processed(endpoint: Endpoint, other_site: TensorSite) -> None:
    inputs = [{"name": name, "datatype": "INT64", "shape": [1, 2], "data": [1, 2]} for name in ("query", "document")]
    for _ in range(8):
        answer = ask(endpoint).post("/v2/models/reranker/infer", json={"inputs": inputs})
        assert answer.headers["x-rayfleet-site"] == "east"
    refused = ask(endpoint, **{"x-rayfleet-jurisdiction": "us"}).post(
        "/v2/models/reranker/infer", json={"inputs": inputs}
    )
    assert refused.status_code == 403
    assert "may be processed in: nowhere" in refused.json()["error"]
    assert ask(endpoint, **{"x-rayfleet-jurisdiction": "us"}).get("/v2/models/reranker/ready").status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "key", "status", "message"),
    [
        ("POST", INFER, "wrong", 401, "Incorrect API key"),
        ("GET", "/v2", "wrong", 401, "Incorrect API key"),
        ("GET", "/v2/health/live", "wrong", 401, "Incorrect API key"),
        ("GET", "/v2/models/classifier", "wrong", 401, "Incorrect API key"),
        ("POST", INFER, NARROW, 403, "may not use the model 'classifier'"),
        ("GET", "/v2/models/classifier/ready", NARROW, 403, "may not use the model 'classifier'"),
        ("GET", "/v2/models/classifier", NARROW, 403, "may not use the model 'classifier'"),
        ("POST", "/v2/models/nobody/infer", KEY, 404, "'nobody' does not exist"),
        ("POST", "/v2/models/classifier/versions/7/infer", KEY, 404, "'classifier 7' does not exist"),
        ("GET", "/v2/models/classifier/versions/7/ready", KEY, 404, "'classifier 7' does not exist"),
        ("POST", "/v2/models/chat/infer", KEY, 400, "'chat' does not support infer"),
        ("POST", INFER, KEY, 400, "not as the Open Inference Protocol has it"),
        ("GET", "/v2/models/classifier/nothing", KEY, 404, "Unknown URL"),
        ("POST", "/v2/models/classifier", KEY, 405, "POST is not allowed"),
    ],
)
def test_errors_have_the_protocols_shape(
    endpoint: Endpoint, method: str, path: str, key: str, status: int, message: str
) -> None:
    answer = ask(endpoint, key).request(method, path, content=b"{")
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


def test_a_program_is_no_model_of_words(endpoint: Endpoint) -> None:
    asked = {"model": "classifier", "messages": [{"role": "user", "content": "x"}]}
    answer = ask(endpoint).post("/v1/chat/completions", json=asked)
    assert answer.status_code == 400
    assert "does not support chat" in answer.json()["error"]["message"]
    (card,) = [each for each in ask(endpoint).get("/v1/models").json()["data"] if each["id"] == "classifier"]
    assert "max_model_len" not in card


def test_it_tells_of_models_and_of_itself(endpoint: Endpoint) -> None:
    client = ask(endpoint)
    assert client.get("/v2").json()["name"] == "rayfleet"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/classifier/ready").json() == {"name": "classifier", "ready": True}
    told = client.get("/v2/models/classifier").json()
    assert (told["name"], told["versions"], told["inputs"]) == ("classifier", [RELEASE], CLASSIFIER_TENSORS["inputs"])


def test_a_choice_is_explained(endpoint: Endpoint) -> None:
    told = ask(endpoint).post("/fleet/route", params={"route": INFER}, content=b"{}").json()
    assert (told["request"]["model"], told["request"]["task"]) == ("classifier", "infer")
    assert told["request"]["expected_output_tokens"] == 0


def test_requests_are_counted_and_paid_for_by_the_second(gateway: Endpoint) -> None:
    def counted() -> float:
        series = 'rayfleet_requests_total{{model="classifier",outcome="ok",site="{}"}}'
        return sum(metric(gateway, series.format(site)) for site in ("east", "west"))

    def paid() -> float:
        series = 'rayfleet_usd_total{{market="on_demand",model="classifier",site="{}",tenant="test"}}'
        return sum(metric(gateway, series.format(site)) for site in ("east", "west"))

    requests, usd = counted(), paid()
    answer = ask(gateway).post(INFER, json=request_of(features()))
    assert_right(answer, features())
    assert counted() == requests + 1
    # A quarter of a card at 3.60 USD an hour, in 8 slots, for at most 10 s.
    assert usd < paid() < usd + 0.001 * 0.25 / 8 * 10
