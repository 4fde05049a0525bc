"""The door: keys, bodies, routes, and errors in OpenAI's shape."""

import http.client
import json
from typing import Any

import openai
import pytest

from tests.fakes.site import FakeSite, error
from tests.serve_app.conftest import KEY, Endpoint, fleet_spec, serving
from tests.serve_app.waiting import wait_for

HELLO: Any = [{"role": "user", "content": "hello"}]
WITH_KEY = {"authorization": f"Bearer {KEY}"}
EVERYONE_WELL = {"healthy": True, "sites": {"east": True, "west": True, "north": True}}


def request(
    endpoint: Endpoint, method: str, path: str, body: Any = None, headers: dict[str, str] = WITH_KEY
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    try:
        connection.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes | None))
        response = connection.getresponse()
        content = response.read()
        parsed = json.loads(content) if response.headers["content-type"] == "application/json" else content
        return response.status, {name.lower(): value for name, value in response.getheaders()}, parsed
    finally:
        connection.close()


def assert_error(answer: tuple[int, dict[str, str], Any], status: int, code: str | None, param: str | None) -> None:
    got, _, body = answer
    assert (got, body["error"]["code"], body["error"]["param"]) == (status, code, param)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/chat", "/metrics", "/fleet/sites"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-wrong"}, {"authorization": "Basic eA=="}])
def test_all_but_health_want_a_key(endpoint: Endpoint, path: str, headers: dict[str, str]) -> None:
    answer = request(endpoint, "GET", path, headers=headers)
    assert_error(answer, 401, "invalid_api_key", None)
    assert answer[1]["www-authenticate"] == "Bearer"


def test_inference_wants_a_key(endpoint: Endpoint) -> None:
    for key in ("", "sk-wrong"):
        with pytest.raises(openai.AuthenticationError):
            endpoint.client(api_key=key or "x").chat.completions.create(model="chat", messages=HELLO)
    assert_error(request(endpoint, "POST", "/v1/embeddings", b"", {}), 401, "invalid_api_key", None)


def test_models(endpoint: Endpoint) -> None:
    client = endpoint.client()
    assert [model.id for model in client.models.list()] == ["chat", "embed", "lonely"]
    assert client.models.retrieve("embed").owned_by == "test"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/none")
    assert caught.value.code == "model_not_found"


def test_an_unknown_model(endpoint: Endpoint) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        endpoint.client().chat.completions.create(model="none", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_model_that_cannot_do_this(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support embeddings"):
        endpoint.client().embeddings.create(model="chat", input="x")


def test_an_unknown_site(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        endpoint.client().chat.completions.create(
            model="chat", messages=HELLO, extra_headers={"x-rayfleet-site-only": "moon"}
        )
    assert caught.value.param == "x-rayfleet-site-only"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe\x00", None),
        (b"[" * 100_000, None),
        (b"{}", "model"),
        (b'{"model": "chat"}', "messages"),
        (b'{"model": "chat", "messages": "x"}', "messages"),
        (b'{"messages": []}', "model"),
        (b'{"messages": [], "model": 1}', "model"),
        (b'{"messages": [], "model": "chat", "stream": "yes"}', "stream"),
    ],
)
def test_bad_bodies(endpoint: Endpoint, body: bytes, param: str | None) -> None:
    assert_error(request(endpoint, "POST", "/v1/chat/completions", body), 400, None, param)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [70_000, 2**20])
def test_a_body_over_the_limit(sites: list[FakeSite], chunked: bool, size: int) -> None:
    with serving(fleet_spec(sites, max_body_bytes=2**16)) as endpoint:
        body = iter([b"x" * 1000] * (size // 1000)) if chunked else b"x" * size
        answer = request(endpoint, "POST", "/v1/completions", body)
        assert_error(answer, 413, "request_too_large", None)
        assert answer[1]["connection"] == "close"
        with pytest.raises(openai.APIStatusError) as caught:
            endpoint.client().completions.create(model="chat", prompt="x" * size)
        assert caught.value.status_code == 413
        assert not any(site.requests for site in sites)


def test_unknown_routes_and_methods(endpoint: Endpoint) -> None:
    assert_error(request(endpoint, "GET", "/v1/none"), 404, "unknown_url", None)
    assert_error(request(endpoint, "GET", "/docs"), 404, "unknown_url", None)
    answer = request(endpoint, "GET", "/v1/chat/completions")
    assert_error(answer, 405, "method_not_allowed", None)
    assert answer[1]["allow"] == "POST"


def test_health_follows_the_sites(sites: list[FakeSite]) -> None:
    with serving(fleet_spec(sites, state_max_age_s=1)) as endpoint:
        wait_for(lambda: request(endpoint, "GET", "/healthz", headers={})[::2] == (200, EVERYONE_WELL))
        for site in sites:
            site.state_reply = error(500)
        wait_for(lambda: request(endpoint, "GET", "/healthz", headers={})[0] == 503)


def test_sites_say_why(sites: list[FakeSite]) -> None:
    with serving(fleet_spec(sites, state_max_age_s=1)) as endpoint:
        sites[1].token = "another"
        wait_for(lambda: not request(endpoint, "GET", "/fleet/sites")[2][1]["healthy"])
        east, west, _ = request(endpoint, "GET", "/fleet/sites")[2]
    assert (east["site"], east["healthy"], east["reason"]) == ("east", True, "")
    assert east["placements"][0]["model"] == "chat"
    assert east["round_trip_s"] > 0
    assert west["reason"].endswith("its state answers with status 401")


def test_metrics(sites: list[FakeSite]) -> None:
    with serving(fleet_spec(sites)) as endpoint:
        west_only = {"x-rayfleet-site-only": "west"}
        endpoint.client().chat.completions.create(model="chat", messages=HELLO, extra_headers=west_only)
        wait_for(lambda: b'rayfleet_site_healthy{site="east"} 1.0' in request(endpoint, "GET", "/metrics")[2])
        text = request(endpoint, "GET", "/metrics")[2].decode()
    assert 'rayfleet_requests_total{model="chat",outcome="ok",site="west"} 1.0' in text
    assert 'rayfleet_first_byte_seconds_count{model="chat",site="west"} 1.0' in text
    assert 'rayfleet_site_healthy{site="west"} 1.0' in text
