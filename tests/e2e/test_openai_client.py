"""What an application developer sees, through the real `openai` client."""

import json

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.conftest import Fleet

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is rayfleet?"}]
SITES = ("aws-us-east-1", "gcp-europe-west4", "onprem-zurich")


@pytest.mark.parametrize("site", SITES)
def test_every_site_answers(fleet: Fleet, site: str) -> None:
    raw = fleet.openai.chat.completions.with_raw_response.create(
        model="demo-chat", messages=QUESTION, temperature=0, extra_headers={"x-rayfleet-site-only": site}
    )
    assert raw.headers["x-rayfleet-site"] == site
    assert raw.headers["x-rayfleet-attempts"] == "1"
    answer = raw.parse()
    assert "rayfleet" in (answer.choices[0].message.content or "").lower()
    assert answer.choices[0].finish_reason == "stop"


def test_sites_give_the_same_greedy_answer(fleet: Fleet) -> None:
    answers = {
        fleet.openai.chat.completions.create(
            model="demo-chat", messages=QUESTION, temperature=0, extra_headers={"x-rayfleet-site-only": site}
        )
        .choices[0]
        .message.content
        for site in SITES
    }
    assert len(answers) == 1


def test_usage_is_present(fleet: Fleet) -> None:
    usage = fleet.openai.chat.completions.create(model="demo-chat", messages=QUESTION, max_tokens=5).usage
    assert usage is not None
    assert usage.completion_tokens == 5
    assert usage.total_tokens == usage.prompt_tokens + 5


def test_stream_arrives_in_order_and_ends_with_done(fleet: Fleet) -> None:
    body = {
        "model": "demo-chat",
        "messages": QUESTION,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    whole = fleet.openai.chat.completions.create(model="demo-chat", messages=QUESTION, temperature=0)
    with fleet.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == whole.choices[0].message.content


def test_stream_is_not_buffered(fleet: Fleet) -> None:
    with fleet.http.stream(
        "POST",
        "/v1/completions",
        json={"model": "demo-chat", "prompt": "a", "max_tokens": 64, "stream": True, "ignore_eos": True},
    ) as response:
        pieces = [len(piece) for piece in response.iter_raw()]
    assert len(pieces) > 8, "64 tokens came in a few large pieces"


def test_completions(fleet: Fleet) -> None:
    answer = fleet.openai.completions.create(model="demo-chat", prompt="A site is", max_tokens=4, temperature=0)
    assert answer.choices[0].text


def test_embeddings(fleet: Fleet) -> None:
    raw = fleet.openai.embeddings.with_raw_response.create(
        model="demo-embed", input=["What is a site?", "what is a site", "How are keys stored?"]
    )
    assert raw.headers["x-rayfleet-site"] == "onprem-zurich", "the only site that has it"
    one, same, other = (item.embedding for item in raw.parse().data)
    assert _dot(one, same) > _dot(one, other)


def test_models_are_listed(fleet: Fleet) -> None:
    assert {model.id for model in fleet.openai.models.list()} == {"demo-chat", "demo-embed"}
    assert fleet.openai.models.retrieve("demo-chat").id == "demo-chat"


def test_load_is_spread_over_equals(fleet: Fleet) -> None:
    answered = {_where(fleet, "least_loaded") for _ in range(40)}
    assert answered == set(SITES)


def test_the_least_bill_is_the_default(fleet: Fleet) -> None:
    """Capacity that is paid for anyway comes before what is paid by the hour."""
    assert "gcp-europe-west4" not in {_where(fleet, "balanced") for _ in range(10)}


def _where(fleet: Fleet, policy: str) -> str:
    raw = fleet.openai.completions.with_raw_response.create(
        model="demo-chat", prompt="a", max_tokens=1, extra_headers={"x-rayfleet-policy": policy}
    )
    return raw.headers["x-rayfleet-site"]


def test_unknown_model(fleet: Fleet) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        fleet.openai.chat.completions.create(model="gpt-oops", messages=QUESTION)
    assert error.value.code == "model_not_found"
    assert "demo-chat" in error.value.message


def test_wrong_key(fleet: Fleet) -> None:
    with pytest.raises(openai.AuthenticationError) as error:
        fleet.client("rf-wrong").models.list()
    assert error.value.code == "invalid_api_key"


def test_no_key(fleet: Fleet) -> None:
    response = httpx.post(
        f"{fleet.local.endpoint}/v1/chat/completions", json={"model": "demo-chat", "messages": QUESTION}
    )
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    _assert_openai_error(response)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{not json", None),
        (b"[]", None),
        (b'{"messages": []}', "model"),
        (b'{"model": 7, "messages": []}', "model"),
        (b'{"model": "demo-chat"}', "messages"),
        (b'{"model": "demo-chat", "messages": "hi"}', "messages"),
        (b'{"model": "demo-chat", "messages": [{"role": "user", "content": "hi"}], "stream": "yes"}', "stream"),
    ],
)
def test_bad_bodies(fleet: Fleet, body: bytes, param: str | None) -> None:
    response = fleet.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert _assert_openai_error(response)["param"] == param


def test_what_the_engine_refuses_is_passed_on(fleet: Fleet) -> None:
    with pytest.raises(openai.BadRequestError):
        fleet.openai.chat.completions.create(model="demo-chat", messages=QUESTION, temperature=-3)
    with pytest.raises(openai.BadRequestError) as error:
        fleet.openai.completions.create(model="demo-chat", prompt="word " * 5000, max_tokens=1)
    assert "1024" in error.value.message


def test_body_over_the_limit(fleet: Fleet) -> None:
    limit = fleet.local.fleet.ingress.max_body_bytes
    response = fleet.http.post("/v1/chat/completions", content=b" " * (limit + 1))
    assert response.status_code == 413
    _assert_openai_error(response)

    chunked = iter([b" " * 2**20] * (limit // 2**20 + 2))
    response = fleet.http.post("/v1/chat/completions", content=chunked)
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("POST", "/v1/nowhere", 404)]
)
def test_wrong_routes(fleet: Fleet, method: str, path: str, status: int) -> None:
    response = fleet.http.request(method, path)
    assert response.status_code == status
    _assert_openai_error(response)


def test_unknown_pinned_site(fleet: Fleet) -> None:
    response = fleet.http.post(
        "/v1/chat/completions",
        json={"model": "demo-chat", "messages": QUESTION},
        headers={"x-rayfleet-site-only": "nowhere"},
    )
    assert response.status_code == 400


def _assert_openai_error(response: httpx.Response) -> dict[str, object]:
    error: dict[str, object] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def _dot(a: list[float], b: list[float]) -> float:
    assert len(a) == len(b)
    return sum(x * y for x, y in zip(a, b, strict=True))
